package server

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

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

// next is the token of the page behind a name. Names are the order of every
// list, so that a page neither repeats nor skips what others do not touch.
func (p page) next(at location, name string) *string {
	token := base64.RawURLEncoding.EncodeToString([]byte(tokenScope(at) + name))
	return &token
}

// after is the name behind which the page begins; it is empty on the first.
func (p page) after(at location) (string, error) {
	if p.token == nil || *p.token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(*p.token)
	name, own := strings.CutPrefix(string(text), tokenScope(at))
	if err != nil || !own || name == "" {
		return "", appmesh.NewBadRequestException("nextToken: %q is not a token of this list", *p.token)
	}
	return name, nil
}

// tokenScope binds a token to its list.
func tokenScope(at location) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{at.mesh.Owner, at.mesh.Mesh, string(at.id.Kind), at.id.Parent, at.id.Name}, "/")))
	return string(sum[:12])
}
