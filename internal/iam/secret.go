package iam

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// redacted is what a Secret prints as, everywhere.
const redacted = "[REDACTED]"

// Secret is a string that fmt, slog and encoding packages cannot print. The
// value sits behind a pointer, so that even fmt's reflection over an unexported
// field shows no more than an address.
type Secret struct{ value *string }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal returns the value. Call it only where it is used or sealed.
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

// MarshalJSON is redacted: a secret is stored sealed, never as itself.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText is redacted, for the encodings that JSON's method does not cover.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
