package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// largestPage is how much a list answers with if nothing smaller is asked for.
const largestPage = 100

func pageSize(asked *int64) int {
	if asked == nil {
		return largestPage
	}
	return int(min(*asked, largestPage))
}

// pageTokens makes and reads the tokens of one list. A token is the name behind
// which its page begins, sealed with a key of the store and bound to the list.
type pageTokens struct {
	aead  cipher.AEAD
	scope []byte
}

func (p *PrivateCA) pageTokens(list ...string) (pageTokens, error) {
	return newPageTokens(p.Store, acmpca.SigningName, list...)
}

func newPageTokens(s *store.Store, service string, list ...string) (pageTokens, error) {
	key, err := s.DeriveKey("paging token of " + service)
	if err != nil {
		return pageTokens{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return pageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return pageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	return pageTokens{aead, fmt.Appendf(nil, "%q", list)}, nil
}

// next is the token of the page behind a name.
func (t pageTokens) next(name string) *string {
	token := base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, []byte(name), t.scope))
	return &token
}

// after is the name behind which the page begins; it is empty on the first.
func (t pageTokens) after(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	const longest = 1024 // a tag's key has at most 512 bytes
	if len(*token) <= longest {
		// The decoder overlooks line breaks: only what this server would have
		// written is a token.
		if sealed, err := base64.RawURLEncoding.Strict().DecodeString(*token); err == nil && !strings.ContainsAny(*token, "\r\n") {
			if name, err := t.aead.Open(nil, nil, sealed, t.scope); err == nil && len(name) > 0 {
				return string(name), nil
			}
		}
	}
	return "", acmpca.NewInvalidNextTokenException("NextToken: %.64q is not a token of this list: give the one that the page before has ended with, with the same parameters", *token)
}

func idOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
