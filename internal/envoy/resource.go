// Package envoy turns a mesh's Graph into what its Envoys hold: listeners,
// clusters, routes, endpoints and secret names, each built and serialised once
// and shared by every proxy that needs it. It is pure: no streams, no store. It
// decides nothing about TLS, it only spells what package tlspolicy decided. The
// page of the guide it follows is docs/architecture.md.
package envoy

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

// Type is an xDS resource type. The order is the order of delivery: what a
// type names belongs to the types before it.
type Type uint8

// The types that Fairlead serves.
const (
	Secret Type = iota
	Cluster
	Endpoint
	Listener
	Route
	NumTypes = 5
)

var typeURLs = [NumTypes]string{
	Secret:   "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	Cluster:  "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	Endpoint: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	Listener: "type.googleapis.com/envoy.config.listener.v3.Listener",
	Route:    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}

// URL is the type's name on the wire.
func (t Type) URL() string { return typeURLs[t] }

// String is the type's short name: cluster.
func (t Type) String() string {
	return [NumTypes]string{"secret", "cluster", "endpoint", "listener", "route"}[t]
}

// TypeOf finds the type of a URL.
func TypeOf(url string) (Type, bool) {
	for t, u := range typeURLs {
		if u == url {
			return Type(t), true
		}
	}
	return 0, false
}

// Ref names a resource.
type Ref struct {
	Type Type
	Name string
}

// Resource is one xDS resource, serialised. It is immutable and shared.
type Resource struct {
	Ref
	// Version is a hash of the content and the origin, in hex.
	Version string
	Any     []byte // a serialised google.protobuf.Any
	// Refs are the resources served over the same stream that this one names:
	// a cluster its endpoints and secrets, a listener its route tables, secrets
	// and clusters, a route table its clusters. They are in order and each once.
	Refs []Ref
	// Origin is the mesh resource to blame when an Envoy rejects this one: of a
	// cluster to a node that node, else the endpoint that holds it.
	Origin mesh.ID
}

// String names a resource and its version. Its content is never printed: that of
// a secret is a key.
func (r Resource) String() string { return r.Type.String() + " " + r.Name + " " + r.Version }

// GoString is String, for %#v.
func (r Resource) GoString() string { return r.String() }

// Format prints String, whatever the verb.
func (r Resource) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) } //nolint:errcheck // as fmt does

// MarshalText is String, for JSON and whatever else looks for it.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Config is all that the proxies of one mesh endpoint and one Shape hold at one
// revision. It is immutable. A later Config of the same resources is another
// Config with the same Resource pointers: compare with Equal.
type Config struct {
	Mesh      mesh.Name
	Endpoint  mesh.ID
	Revision  int64
	Resources [NumTypes][]*Resource // by name
	Origins   []mesh.Origin
}

// Equal is true when both hold the same resources, whatever their revisions.
func (c *Config) Equal(other *Config) bool {
	if c == nil || other == nil {
		return c == other
	}
	for t := range c.Resources {
		if !slices.EqualFunc(c.Resources[t], other.Resources[t], func(a, b *Resource) bool {
			return a == b || (a.Name == b.Name && a.Version == b.Version)
		}) {
			return false
		}
	}
	return true
}

// Resource finds a resource by name, or nil.
func (c *Config) Resource(ref Ref) *Resource {
	list := c.Resources[ref.Type]
	i, ok := slices.BinarySearchFunc(list, ref.Name, func(r *Resource, name string) int {
		return strings.Compare(r.Name, name)
	})
	if !ok {
		return nil
	}
	return list[i]
}

// Check tells whether a config may go on the wire: its resources are in order,
// no name stands twice, and every reference is to a resource that is there.
func (c *Config) Check() error {
	for t, list := range c.Resources {
		for i, r := range list {
			switch {
			case r.Type != Type(t):
				return fmt.Errorf("check %s: %s %q is listed as a %s", c.Endpoint, r.Type, r.Name, Type(t))
			case i > 0 && list[i-1].Name == r.Name:
				return fmt.Errorf("check %s: two %ss are named %q", c.Endpoint, r.Type, r.Name)
			case i > 0 && list[i-1].Name > r.Name:
				return fmt.Errorf("check %s: %s %q is out of order", c.Endpoint, r.Type, r.Name)
			}
		}
	}
	for _, list := range c.Resources {
		for _, r := range list {
			for _, ref := range r.Refs {
				if c.Resource(ref) == nil {
					return fmt.Errorf("check %s: %s %q names %s %q, which is not there", c.Endpoint, r.Type, r.Name, ref.Type, ref.Name)
				}
			}
		}
	}
	return nil
}
