package awsapi

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
)

// MaxPageToken bounds a paging token, in characters: the longest name that a
// list is ordered by is a tag's key, of 128 characters in at most 512 bytes.
const MaxPageToken = 1024

// PageTokens makes and reads the paging tokens of one list. A token is the name
// behind which its page begins, sealed with a key of the store and bound to the
// list: every server reads it, after a restart too, and nobody else can make
// one. Names are the order of every list, so that a page neither repeats nor
// skips what others do not touch.
type PageTokens struct {
	aead  cipher.AEAD
	scope []byte
}

// NewPageTokens takes a key of 32 bytes, derived for this purpose alone, and
// what tells the list from all others: the service's own words, in order.
func NewPageTokens(key []byte, list ...string) (PageTokens, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return PageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return PageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	return PageTokens{aead, fmt.Appendf(nil, "%q", list)}, nil
}

// Next is the token of the page behind a name.
func (t PageTokens) Next(name string) *string {
	token := base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, []byte(name), t.scope))
	return &token
}

// After is the name behind which the page begins; false: it is not a token of
// this list.
func (t PageTokens) After(token string) (name string, ok bool) {
	if len(token) > MaxPageToken {
		return "", false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	// The decoder overlooks line breaks and stray bits: only what this server
	// would have written is a token.
	if err != nil || base64.RawURLEncoding.EncodeToString(sealed) != token {
		return "", false
	}
	opened, err := t.aead.Open(nil, nil, sealed, t.scope)
	return string(opened), err == nil && len(opened) > 0
}
