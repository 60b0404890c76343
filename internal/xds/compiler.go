package xds

import (
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// compiler is the way of the data from the store to the streams.
type compiler struct {
	graph   *mesh.Graph // the newest
	builder *envoy.Builder
}

func newCompiler() Compiler { return &compiler{builder: envoy.NewBuilder()} }

func (c *compiler) Graph(view *mesh.View) *mesh.Graph {
	c.graph = mesh.Rebuild(c.graph, view)
	return c.graph
}

func (c *compiler) Build(g *mesh.Graph, id mesh.ID, shape envoy.Shape) (*envoy.Config, []mesh.Problem, error) {
	return c.builder.Build(g, id, shape)
}
