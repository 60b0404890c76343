package server

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

// asked is what the rules need of a request beside its spec.
type asked struct {
	nameMember string // of a create request: virtualNodeName; else empty
	name       string
	tags       []appmesh.TagRef
	token      *string
}

// requestRules are the rules of all kinds on what stands beside the spec.
var requestRules = []rule[asked]{
	{"name", "B.12 22", "a name has letters, digits, hyphens, underscores and dots, up to 255 of them; . and .. are none", func(r *asked, f *faults) {
		if r.nameMember != "" {
			resourceName(f, r.nameMember, r.name)
		}
	}},
	{"client-token", "A.5", "a client token has up to 36 letters, digits, hyphens and underscores", func(r *asked, f *faults) {
		if r.token != nil && !isClientToken(*r.token) {
			f.add("clientToken", "%.80q may have up to %d letters, digits, hyphens and underscores", *r.token, maxClientToken)
		}
	}},
	{"tag-once", "A.7", "the keys of a request's tags differ", func(r *asked, f *faults) {
		first := map[string]bool{}
		for i, tag := range r.tags {
			if first[tag.Key] {
				f.add(fmt.Sprintf("tags[%d].key", i), "%q is given twice", tag.Key)
			}
			first[tag.Key] = true
		}
	}},
	{"tag-reserved", "A.7", "keys of tags that begin with aws:, in any case, are reserved", func(r *asked, f *faults) {
		for i, tag := range r.tags {
			if strings.HasPrefix(strings.ToLower(tag.Key), "aws:") {
				f.add(fmt.Sprintf("tags[%d].key", i), "%q is reserved: keys that begin with aws: are", tag.Key)
			}
		}
	}},
	{"tag-of-fairlead", "design.md 5", "keys of tags that begin with fairlead: are those that this version knows", func(r *asked, f *faults) {
		for i, tag := range r.tags {
			ownTag(f, fmt.Sprintf("tags[%d]", i), tag)
		}
	}},
}

// maxClientToken is App Mesh's documented length of a client token.
const maxClientToken = 36

func isClientToken(token string) bool {
	return len(token) <= maxClientToken && !strings.ContainsFunc(token, func(r rune) bool { return r > 0x7f || !isNameByte(byte(r)) || r == '.' })
}

// ownTag checks a tag that configures what App Mesh's spec cannot say.
func ownTag(f *faults, at string, tag appmesh.TagRef) {
	if !strings.HasPrefix(strings.ToLower(tag.Key), ownPrefix) {
		return
	}
	key := strings.TrimPrefix(tag.Key, ownPrefix)
	if port, rest, scoped := strings.Cut(key, ":"); scoped && isPort(port) {
		key = rest
	}
	values, known := ownTags[key]
	switch {
	case !known:
		f.add(at+".key", "%q is not known to this version, which would ignore it; known behind %s are: %s", tag.Key, ownPrefix, cmp.Or(strings.Join(slices.Sorted(maps.Keys(ownTags)), ", "), "none"))
	case !slices.Contains(values, pointed(tag.Value)):
		f.add(at+".value", "%q is not one of %s", pointed(tag.Value), strings.Join(values, ", "))
	}
}

func isPort(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

// tagMap is a list of tags that has passed the rules.
func tagMap(refs []appmesh.TagRef) map[string]string {
	if len(refs) == 0 {
		return nil
	}
	tags := map[string]string{}
	for _, ref := range refs {
		tags[ref.Key] = pointed(ref.Value)
	}
	return tags
}
