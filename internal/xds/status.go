package xds

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// The node metadata that agents add (values of node.metadata's fields).
const (
	MetadataAgent = "fairlead.agent" // string: the agent's version
	MetadataHeld  = "fairlead.held"  // struct, as Manifest.Struct: what the agent holds
	// MetadataInstance is a string that the agent draws when it starts, by which its
	// proxy is known again when it reconnects.
	MetadataInstance = "fairlead.instance"
)

// maxReport bounds a report, as JSON.
const maxReport = 1 << 20

// ProxyInfo is what a proxy says of itself. It is shown, and decides nothing.
type ProxyInfo struct {
	Node         string    `json:"node"`    // node.id
	Address      string    `json:"address"` // host:port of the connection
	EnvoyVersion string    `json:"envoyVersion,omitempty"`
	AgentVersion string    `json:"agentVersion,omitempty"`
	Since        time.Time `json:"since"` // when the stream was accepted
}

// ProxyStatus is a connected proxy, for the operator API.
type ProxyStatus struct {
	Mesh     mesh.Name `json:"-"`
	Endpoint mesh.ID   `json:"-"`
	ProxyInfo
	Protocol Protocol `json:"protocol"`
	// Held says why the proxy is sent nothing, or nothing newer; empty: it is
	// not held.
	Held string `json:"held,omitempty"`
	// Settled: it has acknowledged all that it was to get.
	Settled bool `json:"settled"`
	// Revision of the mesh that the proxy is to hold; Types say which it has
	// acknowledged.
	Revision int64        `json:"revision"`
	Types    []TypeStatus `json:"types"`
	Report   []byte       `json:"-"` // JSON of the newest report; nil: none
}

// TypeStatus is what became of one resource type.
type TypeStatus struct {
	Type      string             `json:"type"` // cluster, listener, …
	Revision  int64              `json:"ackedRevision"`
	Resources int                `json:"resources"` // that the proxy holds
	Rejected  []RejectedResource `json:"rejected,omitempty"`
}

// RejectedResource is a resource that the proxy rejected, until its content
// changes.
type RejectedResource struct {
	Name     string  `json:"name"`
	Version  string  `json:"version"`
	Revision int64   `json:"revision"` // that it was first sent at
	Standing string  `json:"standing,omitempty"`
	Message  string  `json:"message"`
	Origin   mesh.ID `json:"-"`
}

// Proxies are the connected proxies, by mesh, endpoint and node.
func (s *Server) Proxies() []ProxyStatus {
	var out []ProxyStatus
	for _, p := range s.hub.proxies() {
		out = append(out, p.status())
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		return cmp.Or(
			cmp.Compare(a.Mesh.Owner, b.Mesh.Owner), cmp.Compare(a.Mesh.Mesh, b.Mesh.Mesh),
			cmp.Compare(a.Endpoint.String(), b.Endpoint.String()), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// Problems are users' mistakes that were found while a mesh was built for the
// proxies that are connected.
func (s *Server) Problems(name mesh.Name) []mesh.Problem {
	s.hub.mu.Lock()
	o := s.hub.owners[name]
	s.hub.mu.Unlock()
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.problems
}

func (h *Hub) proxies() []*proxy {
	var out []*proxy
	for _, o := range h.all() {
		o.mu.Lock()
		for p := range o.members {
			out = append(out, p)
		}
		o.mu.Unlock()
	}
	return out
}

func (p *proxy) status() ProxyStatus {
	st := p.stream.Status()
	p.mu.Lock()
	held, report := cmp.Or(p.hold, p.groupHold), p.report
	p.mu.Unlock()
	out := ProxyStatus{Mesh: p.mesh, Endpoint: p.endpoint, ProxyInfo: p.info, Protocol: st.Protocol,
		Held: cmp.Or(held, st.Held), Settled: st.Settled, Revision: st.Revision, Report: report}
	for t := range st.Acked {
		ts := TypeStatus{Type: envoy.Type(t).String(), Revision: st.Acked[t], Resources: st.Resources[t]}
		for _, r := range st.Rejected {
			if r.Resource.Type != envoy.Type(t) {
				continue
			}
			rejected := RejectedResource{Name: r.Resource.Name, Version: r.Resource.Version, Revision: r.Revision,
				Message: r.Message, Origin: r.Resource.Origin}
			if r.Standing != nil {
				rejected.Standing = r.Standing.Version
			}
			ts.Rejected = append(ts.Rejected, rejected)
		}
		out.Types = append(out.Types, ts)
	}
	return out
}

// observer is what the server makes of a proxy's stream.
func (p *proxy) observer() Observer {
	return Observer{Rejected: p.rejected, Held: p.heldByVersion, Reported: p.reported, Ended: p.ended}
}

// rejected logs a rejection, once for all proxies that reject the same.
func (p *proxy) rejected(r Rejection) {
	o := p.owner
	o.mu.Lock()
	known := o.logged[r.Resource.Ref] == r.Resource.Version
	o.logged[r.Resource.Ref] = r.Resource.Version
	o.mu.Unlock()
	if known {
		return
	}
	stands := "nothing"
	if r.Standing != nil {
		stands = r.Standing.Version
	}
	o.hub.log.Error("a proxy rejected a resource; its last good version stands", "mesh", p.mesh.Mesh,
		"resource", r.Resource.Origin.String(), "endpoint", p.endpoint.String(), "proxy", p.info.Node,
		"type", r.Resource.Type.String(), "name", r.Resource.Name, "version", r.Resource.Version,
		"revision", r.Revision, "stands", stands, "message", r.Message)
}

func (p *proxy) heldByVersion(reason string) {
	if p.setHold(reason) {
		p.owner.hub.log.Error("a proxy is held: it would lose what no change explains", "mesh", p.mesh.Mesh,
			"endpoint", p.endpoint.String(), "proxy", p.info.Node, "address", p.info.Address, "why", reason,
			"release", releaseHint(p.mesh, p.endpoint))
	}
	// An operator may have accepted it already.
	p.owner.changed()
}

func (p *proxy) reported(report *structpb.Struct) {
	b, err := protojson.Marshal(report)
	if err != nil || len(b) > maxReport {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report = b
}

func (p *proxy) ended(error) {
	p.setHold("")
	p.owner.leave(p)
}

// infoOf reads what is shown of a node.
func infoOf(node *corev3.Node, now time.Time) ProxyInfo {
	info := ProxyInfo{Node: node.GetId(), Since: now,
		AgentVersion: node.GetMetadata().GetFields()[MetadataAgent].GetStringValue()}
	switch v := node.GetUserAgentVersionType().(type) {
	case *corev3.Node_UserAgentVersion:
		info.EnvoyVersion = v.UserAgentVersion
	case *corev3.Node_UserAgentBuildVersion:
		n := v.UserAgentBuildVersion.GetVersion()
		info.EnvoyVersion = fmt.Sprintf("%d.%d.%d", n.GetMajorNumber(), n.GetMinorNumber(), n.GetPatch())
	}
	return info
}
