package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// quota is one of App Mesh's quotas (facts B.10). What counts is the mesh
// owner's, whoever makes it. That a route has at most ten weighted targets is
// part of the service model and no quota here.
type quota struct {
	name    string // as in Quotas
	preset  int
	appMesh int // what App Mesh granted at first
	counts  string
}

var quotas = []quota{
	{"meshes", 5_000, 15, "meshes of an account"},
	{"virtual-gateways-per-mesh", 2_000, 3, "virtual gateways in a mesh"},
	{"virtual-nodes-per-mesh", 20_000, 200, "virtual nodes in a mesh"},
	{"virtual-routers-per-mesh", 20_000, 200, "virtual routers in a mesh"},
	{"virtual-services-per-mesh", 20_000, 200, "virtual services in a mesh"},
	{"routes-per-virtual-router", 2_000, 50, "routes of a virtual router"},
	{"gateway-routes-per-virtual-gateway", 2_000, 10, "gateway routes of a virtual gateway"},
	{backendsQuota, 2_000, 50, "backends of a virtual node"},
	{nodeProxiesQuota, 50_000, 50, "proxies of a virtual node that one server serves"},
	{gatewayProxiesQuota, 50_000, 50, "proxies of a virtual gateway that one server serves"},
}

const (
	backendsQuota       = "backends-per-virtual-node"
	nodeProxiesQuota    = "envoys-per-virtual-node"
	gatewayProxiesQuota = "envoys-per-virtual-gateway"
)

// maxQuota keeps counting cheap: a quota near its limit is counted in the store.
const maxQuota = 1_000_000

// Quotas are limits by name, of those that are not left at their preset.
type Quotas map[string]int

// ParseQuotas reads settings of the form NAME=VALUE. Its error says which names
// there are.
func ParseQuotas(settings []string) (Quotas, error) {
	set := Quotas{}
	for _, setting := range settings {
		name, text, _ := strings.Cut(setting, "=")
		if !slices.ContainsFunc(quotas, func(q quota) bool { return q.name == name }) {
			return nil, fmt.Errorf("%q is no quota; those that can be set, as NAME=VALUE, are: %s", name, strings.Join(quotaNames(), ", "))
		}
		value, err := strconv.Atoi(text)
		if err != nil || value < 1 || value > maxQuota {
			return nil, fmt.Errorf("%s: %q is not a number from 1 to %d", name, text, maxQuota)
		}
		if _, twice := set[name]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		set[name] = value
	}
	return set, nil
}

func quotaNames() []string {
	var names []string
	for _, q := range quotas {
		names = append(names, q.name)
	}
	return names
}

// limit is what a quota allows, by its name in the table.
func (q Quotas) limit(name string) int {
	if value, ok := q[name]; ok {
		return value
	}
	for _, known := range quotas {
		if known.name == name {
			return known.preset
		}
	}
	return 0
}

// Proxies is how many proxies of one mesh endpoint a server may serve.
func (q Quotas) Proxies(of mesh.Kind) int {
	if of == mesh.KindVirtualGateway {
		return q.limit(gatewayProxiesQuota)
	}
	return q.limit(nodeProxiesQuota)
}

// room refuses the creation of one more resource than its quota allows. That it
// is within the quota becomes a condition of the transaction.
func (k *kind[S]) room(tx *store.Tx, limits Quotas, at location) error {
	limit := limits.limit(k.quota)
	below, err := tx.Below(at.mesh, k.kind, at.id.Parent, limit)
	if err != nil || below {
		return err
	}
	in := fmt.Sprintf("mesh %s of account %s", at.mesh.Mesh, at.mesh.Owner)
	switch k.kind {
	case mesh.KindMesh:
		in = "account " + at.mesh.Owner
	case mesh.KindRoute:
		in = fmt.Sprintf("virtual router %s of %s", at.id.Parent, in)
	case mesh.KindGatewayRoute:
		in = fmt.Sprintf("virtual gateway %s of %s", at.id.Parent, in)
	}
	return limitExceeded(k.quota, limit, in)
}

// backendsWithin refuses a node with more backends than the quota allows.
func backendsWithin(limits Quotas, at location, spec *appmesh.VirtualNodeSpec) error {
	limit := limits.limit(backendsQuota)
	if len(spec.Backends) <= limit {
		return nil
	}
	return limitExceeded(backendsQuota, limit, fmt.Sprintf("spec.backends has %d: virtual node %s", len(spec.Backends), at.id.Name))
}

func limitExceeded(name string, limit int, in string) error {
	return appmesh.NewLimitExceededException("%s: the quota %s allows %d. Raise it with --quota %[2]s=… on every server, or delete what is not needed", in, name, limit)
}
