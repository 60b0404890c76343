package api

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// redacted is what a Secret prints as, everywhere.
const redacted = "[REDACTED]"

// Secret is a string that fmt, slog and encoding packages cannot print; service
// models call it sensitive. The value sits behind a pointer, so that even fmt's
// reflection over an unexported field shows no more than an address. The zero
// value is absent; NewSecret("") is there and empty.
type Secret struct{ value *string }

// SecretBlob is a Secret that travels as bytes.
type SecretBlob struct{ Secret }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{&value} }

// NewSecretBlob wraps bytes, which it copies.
func NewSecretBlob(value []byte) SecretBlob { return SecretBlob{NewSecret(string(value))} }

// Reveal returns the value. Call it only where it is used, sealed or sent.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Equal compares in time that depends on the lengths alone.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String is redacted.
func (Secret) String() string { return redacted }

// GoString is redacted.
func (Secret) GoString() string { return redacted }

// Format is redacted under every verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue is redacted.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON is redacted: a secret is stored sealed, never as itself, and goes
// over the wire only where package awsapi says so.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText is redacted, for the encodings that JSON's method does not cover.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
