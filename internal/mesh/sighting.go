package mesh

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Sighting is what a server knows of a proxy: the evidence for changes that go on
// only when every proxy holds what went before. A proxy that has gone is seen for
// some minutes more, which the store decides.
type Sighting struct {
	Mesh     Name `json:"-"`
	Endpoint ID   `json:"-"`
	// Instance tells the proxies of an endpoint apart, and knows one again that
	// comes back: what its agent says, else its address. It is one server's
	// word for one proxy that holds the endpoint's credentials.
	Instance string `json:"-"`

	Server  string    `json:"server"`
	Node    string    `json:"node"`
	Address string    `json:"address"` // host:port of the connection
	Since   time.Time `json:"since"`   // when its stream began
	Ended   time.Time `json:"ended,omitzero"`
	// Revision of the mesh that it had acknowledged whole when somebody last
	// waited for one. It is not kept up to date otherwise.
	Revision int64 `json:"revision,omitzero"`
	// Rejected are resources that it has rejected, "secret NAME", at most a few.
	Rejected []string `json:"rejected,omitzero"`
	Held     string   `json:"held,omitzero"` // why it is sent nothing newer
}

// Straggler is a proxy that somebody waits for.
type Straggler struct {
	Proxy string    `json:"proxy"` // mesh/M/virtualNode/N
	Node  string    `json:"node"`
	From  string    `json:"address"`
	At    string    `json:"server"`
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// Lacking are the proxies of some endpoints that have not acknowledged a revision
// of their mesh whole, or have rejected a resource of a type, whose name in Envoy's
// resources is the word before the space in Rejected. A proxy that is connected
// twice, or again, counts once, by its newest stream.
func Lacking(all []Sighting, needs func(Name, ID) bool, revision int64, rejecting string) []Straggler {
	type proxy struct {
		mesh     Name
		endpoint ID
		instance string
	}
	newest := map[proxy]Sighting{}
	for _, s := range all {
		key := proxy{s.Mesh, s.Endpoint, s.Instance}
		if known, ok := newest[key]; !ok || s.newer(known) {
			newest[key] = s
		}
	}
	var out []Straggler
	for _, s := range newest {
		if why := s.lacks(revision, rejecting); why != "" && needs(s.Mesh, s.Endpoint) {
			out = append(out, Straggler{Proxy: "mesh/" + s.Mesh.Mesh + "/" + s.Endpoint.String(), Node: s.Node, From: s.Address, At: s.Server, Since: s.Since, Why: why})
		}
	}
	slices.SortFunc(out, func(a, b Straggler) int {
		return cmp.Or(cmp.Compare(a.Proxy, b.Proxy), cmp.Compare(a.At, b.At), cmp.Compare(a.From, b.From))
	})
	return out
}

// newer says whether a sighting of a proxy makes another one obsolete.
func (s Sighting) newer(than Sighting) bool {
	if s.Ended.IsZero() != than.Ended.IsZero() {
		return s.Ended.IsZero()
	}
	return s.Since.After(than.Since)
}

// lacks says why a proxy is to be waited for; empty: it is not.
func (s Sighting) lacks(revision int64, rejecting string) string {
	for _, r := range s.Rejected {
		if strings.HasPrefix(r, rejecting+" ") {
			return "it has rejected " + r
		}
	}
	switch {
	case s.Revision >= revision:
		return ""
	case !s.Ended.IsZero():
		return "it is gone since " + s.Ended.UTC().Format(time.RFC3339) + ", and had not acknowledged it"
	case s.Held != "":
		return "it is held: " + s.Held
	}
	return "it has not acknowledged it"
}
