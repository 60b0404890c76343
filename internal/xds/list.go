package xds

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/envoy"
)

// A list is resources of one type, sorted by name. Lists are never written to
// once they are made: streams share those of their Config, so that an idle
// stream holds no copy of anything.
type list = []*envoy.Resource

func byName(r *envoy.Resource, name string) int { return strings.Compare(r.Name, name) }

// find is the resource of a name, or nil.
func find(l list, name string) *envoy.Resource {
	if i, ok := slices.BinarySearchFunc(l, name, byName); ok {
		return l[i]
	}
	return nil
}

// alias says whether two lists are one and the same memory.
func alias(a, b list) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// same says whether two resources have the same content.
func same(a, b *envoy.Resource) bool {
	return a == b || a != nil && b != nil && a.Version == b.Version && a.Version != ""
}

// equal says whether two lists hold the same resources.
func equal(a, b list) bool {
	return alias(a, b) || slices.Equal(a, b)
}

// compare walks two lists in step. changed is called with each resource of to
// that from has not, or has in another version; gone with each of from whose
// name is not in to.
func compare(from, to list, changed, gone func(*envoy.Resource)) {
	i := 0
	for _, r := range to {
		for i < len(from) && from[i].Name < r.Name {
			gone(from[i])
			i++
		}
		if i < len(from) && from[i].Name == r.Name {
			if !same(from[i], r) {
				changed(r)
			}
			i++
			continue
		}
		changed(r)
	}
	for ; i < len(from); i++ {
		gone(from[i])
	}
}

// with is l with items put in and the removed names taken out. items and
// removed need not be sorted.
func with(l list, items list, removed []string) list {
	if len(items) == 0 && len(removed) == 0 {
		return l
	}
	out := make(list, 0, len(l)+len(items))
	out = append(out, l...)
	for _, r := range items {
		if i, ok := slices.BinarySearchFunc(out, r.Name, byName); ok {
			out[i] = r
		} else {
			out = slices.Insert(out, i, r)
		}
	}
	for _, name := range removed {
		if i, ok := slices.BinarySearchFunc(out, name, byName); ok {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}

// keep is the part of l that f is true of; l itself if that is all.
func keep(l list, f func(*envoy.Resource) bool) list {
	for i, r := range l {
		if f(r) {
			continue
		}
		out := append(make(list, 0, len(l)-1), l[:i]...)
		for _, r := range l[i+1:] {
			if f(r) {
				out = append(out, r)
			}
		}
		return out
	}
	return l
}

// Check says what is wrong with a Config that is about to be published: its
// resources must be sorted by name, each name once, and every Ref must be
// inside. A configuration that fails is never sent to anyone.
func Check(c *envoy.Config) error {
	for t, l := range c.Resources {
		for i, r := range l {
			if r.Type != envoy.Type(t) {
				return &CheckError{Resource: r, Message: "lies among resources of type " + envoy.Type(t).String()}
			}
			if i > 0 && l[i-1].Name >= r.Name {
				return &CheckError{Resource: r, Message: "is there twice or not in order"}
			}
			for _, ref := range r.Refs {
				if find(c.Resources[ref.Type], ref.Name) == nil {
					return &CheckError{Resource: r, Message: "names the " + ref.Type.String() + " " + ref.Name + ", which does not exist"}
				}
			}
		}
	}
	return nil
}

// CheckError is a configuration that must not be published.
type CheckError struct {
	Resource *envoy.Resource // the one that is wrong
	Message  string
}

func (e *CheckError) Error() string {
	return e.Resource.Type.String() + " " + e.Resource.Name + " " + e.Message
}
