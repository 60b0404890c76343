package server

import (
	"context"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
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

// pageTokens are those of one list for one caller, with App Mesh's refusal.
type pageTokens struct{ awsapi.PageTokens }

func (s *Service) pageTokens(ctx context.Context, of location) (pageTokens, error) {
	key, err := s.Store.DeriveKey("paging token")
	if err != nil {
		return pageTokens{}, err
	}
	return newPageTokens(key, account(ctx), of)
}

func newPageTokens(key []byte, caller string, of location) (pageTokens, error) {
	tokens, err := awsapi.NewPageTokens(key, caller, of.mesh.Owner, of.mesh.Mesh, string(of.id.Kind), of.id.Parent, of.id.Name)
	return pageTokens{tokens}, err
}

// after is the name behind which the page begins; it is empty on the first.
func (t pageTokens) after(token *string) (string, error) {
	if token == nil || *token == "" {
		return "", nil
	}
	if name, ok := t.After(*token); ok {
		return name, nil
	}
	return "", appmesh.NewBadRequestException("nextToken: %.64q is not a token of this list: give the one that the page before has ended with, with the same parameters", *token)
}
