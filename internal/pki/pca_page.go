package pki

import (
	"strings"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
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

// pageTokens are those of one list, with the refusal of these services.
type pageTokens struct{ awsapi.PageTokens }

func (p *PrivateCA) pageTokens(list ...string) (pageTokens, error) {
	return newPageTokens(p.Store, acmpca.SigningName, list...)
}

func newPageTokens(s *store.Store, service string, list ...string) (pageTokens, error) {
	key, err := s.DeriveKey("paging token of " + service)
	if err != nil {
		return pageTokens{}, err
	}
	tokens, err := awsapi.NewPageTokens(key, list...)
	return pageTokens{tokens}, err
}

// after is the name behind which the page begins; it is empty on the first.
func (t pageTokens) after(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	if name, ok := t.After(*token); ok {
		return name, nil
	}
	return "", acmpca.NewInvalidNextTokenException("NextToken: %.64q is not a token of this list: give the one that the page before has ended with, with the same parameters", *token)
}

func idOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
