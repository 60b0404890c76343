package mesh

import "slices"

// originOf numbers the records of a view in the order of their IDs, so that
// the origins of an endpoint are sorted and compared as numbers.
type originOf struct {
	all    []Origin
	number map[ID]int
}

func numberOrigins(v *View) originOf {
	n := len(v.VirtualNodes) + len(v.VirtualServices) + len(v.VirtualRouters) + len(v.VirtualGateways) + len(v.Routes) + len(v.GatewayRoutes) + 1
	o := originOf{all: make([]Origin, 0, n), number: make(map[ID]int, n)}
	if v.Mesh != nil {
		o.all = append(o.all, Origin{v.Mesh.ID, v.Mesh.Revision})
	}
	addOrigins(&o, KindVirtualNode, v.VirtualNodes)
	addOrigins(&o, KindVirtualService, v.VirtualServices)
	addOrigins(&o, KindVirtualRouter, v.VirtualRouters)
	addOrigins(&o, KindVirtualGateway, v.VirtualGateways)
	for id, r := range v.Routes {
		if r != nil {
			o.all = append(o.all, Origin{id, r.Revision})
		}
	}
	for id, r := range v.GatewayRoutes {
		if r != nil {
			o.all = append(o.all, Origin{id, r.Revision})
		}
	}
	slices.SortFunc(o.all, func(x, y Origin) int { return x.ID.Compare(y.ID) })
	for i, origin := range o.all {
		o.number[origin.ID] = i
	}
	return o
}

func addOrigins[S any](o *originOf, kind Kind, records map[string]*Record[S]) {
	for name, r := range records {
		if r != nil {
			o.all = append(o.all, Origin{ID{Kind: kind, Name: name}, r.Revision})
		}
	}
}

// origins lists the records that an endpoint's proxies are configured from: a
// proxy may lose a resource only because one of them went or changed.
func (b *builder) origins(e *Endpoint) {
	numbers := b.scratch[:0]
	if b.view.Mesh != nil {
		numbers = append(numbers, b.origin.number[b.view.Mesh.ID])
	}
	numbers = append(numbers, b.origin.number[e.ID])
	for _, route := range e.GatewayRoutes {
		numbers = append(numbers, b.origin.number[route.Record.ID])
	}
	for _, backend := range e.Backends {
		if reach := b.reach[backend.Service]; reach != nil {
			numbers = append(numbers, reach.origins...)
		}
	}
	b.scratch = numbers
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	e.Origins = make([]Origin, len(numbers))
	for i, n := range numbers {
		e.Origins[i] = b.origin.all[n]
	}
}
