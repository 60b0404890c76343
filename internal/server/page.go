package server

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"

	"github.com/fairlead/fairlead/api/appmesh"
)

// page is what a list request asks for.
type page struct {
	limit   *int64
	token   *string
	largest int // 0: 100
}

func (p page) size() int {
	if p.limit != nil {
		return int(*p.limit)
	}
	if p.largest > 0 {
		return p.largest
	}
	return 100
}

// maxPageToken bounds a token, in characters: the longest name that a list is
// ordered by is a tag's key, of 128 characters in at most 512 bytes.
const maxPageToken = 1024

// pageTokens makes and reads the tokens of one list for one caller. A token is
// the name behind which its page begins, sealed with a key of the store and
// bound to list and caller: every server reads it, after a restart too, and
// nobody else can make one. Names are the order of every list, so that a page
// neither repeats nor skips what others do not touch.
type pageTokens struct {
	aead  cipher.AEAD
	scope []byte
}

func (s *Service) pageTokens(ctx context.Context, of location) (pageTokens, error) {
	key, err := s.Store.DeriveKey("paging token")
	if err != nil {
		return pageTokens{}, err
	}
	return newPageTokens(key, account(ctx), of)
}

func newPageTokens(key []byte, caller string, of location) (pageTokens, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return pageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return pageTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	scope := fmt.Appendf(nil, "%q", []string{caller, of.mesh.Owner, of.mesh.Mesh, string(of.id.Kind), of.id.Parent, of.id.Name})
	return pageTokens{aead, scope}, nil
}

// next is the token of the page behind a name.
func (t pageTokens) next(name string) *string {
	token := base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, []byte(name), t.scope))
	return &token
}

// after is the name behind which the page begins; it is empty on the first.
func (t pageTokens) after(token *string) (string, error) {
	if token == nil || *token == "" {
		return "", nil
	}
	if len(*token) > maxPageToken {
		return "", appmesh.NewBadRequestException("nextToken: %d characters are too many for a token of this list", len(*token))
	}
	sealed, err := base64.RawURLEncoding.DecodeString(*token)
	// The decoder overlooks line breaks and stray bits: only what this server
	// would have written is a token.
	if err == nil && base64.RawURLEncoding.EncodeToString(sealed) == *token {
		if name, err := t.aead.Open(nil, nil, sealed, t.scope); err == nil && len(name) > 0 {
			return string(name), nil
		}
	}
	return "", appmesh.NewBadRequestException("nextToken: %.64q is not a token of this list: give the one that the page before has ended with, with the same parameters", *token)
}
