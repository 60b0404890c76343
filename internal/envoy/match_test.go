package envoy

import (
	"fmt"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/internal/mesh"
)

// TestProgramSize: the largest expressions that are let through fit Envoy's
// limit, for classes of all kinds.
func TestProgramSize(t *testing.T) {
	spec := `
-- virtualNode/b.yaml --
listeners: [{portMapping: {port: 80, protocol: http}}]
serviceDiscovery: {dns: {hostname: b.local}}
-- virtualService/b.yaml --
provider: {virtualRouter: {virtualRouterName: r}}
-- virtualNode/a.yaml --
backends: [{virtualService: {virtualServiceName: b}}]
-- virtualRouter/r.yaml --
listeners: [{portMapping: {port: 80, protocol: http}}]
`
	for i, class := range []string{"a", "(?i:k)", "[a-z]", "[a-zA-Z0-9_-]", "[^/]", ".", `\w`, `\d+`, `\pL`, `\p{Greek}`, "(a|b|c)", "(ab)?", "é", "[à-ÿ]", `\W`, `(?s:.)*`} {
		// The most copies of the class that are let through.
		n := 0
		for n < 1000 {
			size, err := programSize(fmt.Sprintf("/(?:%s){%d}", class, n+1))
			if err != nil {
				t.Fatal(err)
			}
			if size > maxProgramSize {
				break
			}
			n++
		}
		if n == 0 {
			t.Logf("%s is too large even once", class)
			continue
		}
		spec += fmt.Sprintf(`
-- virtualRouter/r/route/r%d.yaml --
httpRoute:
  match: {path: {regex: '/(?:%s){%d}'}}
  action: {weightedTargets: [{virtualNode: b, weight: 1}]}
`, i, class, n)
	}
	graph := mesh.Build(readMesh(t, txtar.Parse([]byte(spec))))
	config, problems, err := NewBuilder().Build(graph, mesh.ID{Kind: mesh.KindVirtualNode, Name: "a"}, Shape{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	validate(t, config)
}
