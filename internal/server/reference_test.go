package server

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
)

var updatePages = flag.Bool("update", false, "write the API reference in docs/reference anew")

// TestAPIReference makes the API reference from the generated types, the tables
// of rules and their cases, and compares it with the pages that are there.
func TestAPIReference(t *testing.T) {
	r := newReferencePages(t)
	for name, made := range map[string]string{
		"appmesh-api.md":   r.operations(),
		"appmesh-types.md": r.types(),
		"appmesh-rules.md": r.rules(),
	} {
		file := "../../docs/reference/" + name
		if *updatePages {
			if err := os.WriteFile(file, []byte(made), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(made, string(page)); diff != "" {
			t.Errorf("docs/reference/%s is not what the API is; run this test with -update (-made +page):\n%s", name, diff)
		}
	}
	for key := range meanings {
		if !r.said[key] {
			t.Errorf("the meaning of %s is of no member", key)
		}
	}
}

const madeBy = "\n<!-- Made by: go test ./internal/server -run TestAPIReference -update -->\n"

// referencePages is what the pages are made from.
type referencePages struct {
	t          *testing.T
	structures map[string]reflect.Type
	used       map[string][]string        // structure to the members that have it
	ruled      map[string]map[string]bool // structure.member to the rules on it
	said       map[string]bool            // keys of meanings that were used
}

func newReferencePages(t *testing.T) *referencePages {
	r := &referencePages{t: t, structures: map[string]reflect.Type{}, used: map[string][]string{}, ruled: map[string]map[string]bool{}, said: map[string]bool{}}
	for _, op := range appmesh.Operations {
		r.visit(reflect.TypeOf(op.New()).Elem(), true)
		r.visit(output(op), true)
	}
	for _, k := range ruledKinds() {
		for _, c := range k.cases {
			for _, fault := range c.want {
				r.rule(reflect.TypeOf(k.spec), fault, c.rule)
			}
		}
	}
	for _, c := range requestRuleCases() {
		for _, k := range ruledKinds() {
			if strings.Contains(c.path, k.collection) {
				r.rule(reflect.TypeOf(k.spec), c.message, c.rule)
				break
			}
		}
	}
	return r
}

// ruledKind is a kind with its rules and their cases.
type ruledKind struct {
	noun       string
	collection string // in a request's path
	spec       any
	rules      []namedRule
	cases      []ruleCase
}

func ruledKinds() []ruledKind {
	return []ruledKind{
		{"virtual nodes", "/virtualNodes", appmesh.VirtualNodeSpec{}, namedRules(virtualNodeRules), nodeCases()},
		{"virtual services", "/virtualServices", appmesh.VirtualServiceSpec{}, namedRules(virtualServiceRules), serviceCases()},
		{"virtual routers", "/virtualRouters", appmesh.VirtualRouterSpec{}, namedRules(virtualRouterRules), routerCases()},
		{"routes", "/routes", appmesh.RouteSpec{}, namedRules(routeRules), routeCases()},
		{"virtual gateways", "/virtualGateways", appmesh.VirtualGatewaySpec{}, namedRules(virtualGatewayRules), gatewayCases()},
		{"gateway routes", "/gatewayRoutes", appmesh.GatewayRouteSpec{}, namedRules(gatewayRouteRules), gatewayRouteCases()},
	}
}

// output is the structure that an operation answers with.
func output(op api.Operation[appmesh.Service]) reflect.Type {
	method, ok := reflect.TypeFor[appmesh.Service]().MethodByName(op.Name)
	if !ok {
		panic("no method " + op.Name)
	}
	return method.Type.Out(0).Elem()
}

// structure is the structure that a member holds, if it does.
func structure(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && t != reflect.TypeFor[api.Timestamp]()
}

// visit finds the structures in a structure.
func (r *referencePages) visit(t reflect.Type, outermost bool) {
	for i := range t.NumField() {
		field := t.Field(i)
		held, ok := structure(field.Type)
		if !ok {
			continue
		}
		if !outermost {
			r.used[held.Name()] = append(r.used[held.Name()], t.Name()+"."+memberName(field))
		}
		if _, known := r.structures[held.Name()]; !known {
			r.structures[held.Name()] = held
			r.visit(held, false)
		}
	}
}

func memberName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return cmp.Or(field.Tag.Get("uri"), field.Tag.Get("query"), name)
}

var faultPath = regexp.MustCompile(`^spec(\.[a-zA-Z0-9]+(\[\d+\])?)+`)

// rule notes which member a fault is about.
func (r *referencePages) rule(spec reflect.Type, fault, id string) {
	path := faultPath.FindString(fault)
	at, key := spec, ""
	for _, name := range strings.Split(path, ".") {
		if name == "spec" || name == "" {
			continue
		}
		name, _, _ = strings.Cut(name, "[")
		field, ok := at.FieldByNameFunc(func(f string) bool {
			field, _ := at.FieldByName(f)
			return memberName(field) == name
		})
		if !ok {
			return // an unknown field is the fault
		}
		key = at.Name() + "." + name
		at, _ = structure(field.Type)
		if at.Kind() != reflect.Struct {
			break
		}
	}
	if key == "" {
		return
	}
	if r.ruled[key] == nil {
		r.ruled[key] = map[string]bool{}
	}
	r.ruled[key][id] = true
}

// meaning is what a member is.
func (r *referencePages) meaning(structure, member string) string {
	plain := strings.TrimPrefix(structure, "VirtualGateway")
	for _, key := range []string{structure + "." + member, plain + "." + member, "*." + member} {
		if text, ok := meanings[key]; ok {
			r.said[key] = true
			return text
		}
	}
	if text, ok := collections[member]; ok {
		return text
	}
	r.t.Errorf("%s.%s has no meaning", structure, member)
	return ""
}

// collections are the members of answers that hold what was asked for.
var collections = map[string]string{
	"meshes": "a page of them, by name", "virtualNodes": "a page of them, by name", "virtualServices": "a page of them, by name",
	"virtualRouters": "a page of them, by name", "virtualGateways": "a page of them, by name", "routes": "a page of them, by name", "gatewayRoutes": "a page of them, by name",
}

// parameterRules are links to the rules on what is in requests beside a spec.
var parameterRules = map[string]string{
	"clientToken": " · [client-token](appmesh-rules.md#client-token)",
	"meshName":    " · [mesh-name](appmesh-rules.md#mesh-name)",
	"meshOwner":   " · [mesh-owner](appmesh-rules.md#mesh-owner)",
	"tags": " · [tag-count](appmesh-rules.md#tag-count) · [tag-once](appmesh-rules.md#tag-once)" +
		" · [tag-reserved](appmesh-rules.md#tag-reserved) · [tag-of-fairlead](appmesh-rules.md#tag-of-fairlead)",
}

// describeType says what a member holds, with links.
func describeType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return describeType(t.Elem())
	case reflect.Slice:
		return "list of " + describeType(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "integer"
	case reflect.Struct:
		if t == reflect.TypeFor[api.Timestamp]() {
			return "seconds since 1970, with milliseconds"
		}
		return fmt.Sprintf("[%s](appmesh-types.md#%s)", t.Name(), strings.ToLower(t.Name()))
	}
	if enum, ok := reflect.Zero(t).Interface().(interface{ Enum() []string }); ok {
		return "`" + strings.Join(enum.Enum(), "`, `") + "`"
	}
	return "string"
}

// describeLimits says what a member's tags allow.
func describeLimits(field reflect.StructField) string {
	t := field.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var all []string
	unit := map[reflect.Kind]string{reflect.String: " characters", reflect.Slice: " items"}[t.Kind()]
	all = append(all, bounds(field, "", unit))
	if t.Kind() == reflect.Slice {
		item := map[reflect.Kind]string{reflect.String: " characters"}[t.Elem().Kind()]
		if each := bounds(field, "each-", item); each != "" {
			all = append(all, "each "+each)
		}
	}
	if pattern := field.Tag.Get("pattern"); pattern != "" {
		all = append(all, "`"+strings.NewReplacer("|", `\|`, "\t", `\t`, "\u00a0", " ").Replace(pattern)+"`")
	}
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), "; ")
}

func bounds(field reflect.StructField, prefix, unit string) string {
	least, hasLeast := field.Tag.Lookup(prefix + "min")
	most, hasMost := field.Tag.Lookup(prefix + "max")
	switch {
	case hasLeast && least == most:
		return least + unit
	case hasLeast && hasMost:
		return least + " to " + most + unit
	case hasLeast:
		return "at least " + least + unit
	case hasMost:
		return "at most " + most + unit
	}
	return ""
}

// members writes the table of a structure's members.
func (r *referencePages) members(w *strings.Builder, t reflect.Type, where bool) {
	if where {
		w.WriteString("| parameter | in | type | required | limits | meaning and rules |\n|---|---|---|---|---|---|\n")
	} else {
		w.WriteString("| member | type | required | limits | meaning and rules |\n|---|---|---|---|---|\n")
	}
	for i := range t.NumField() {
		field := t.Field(i)
		name := memberName(field)
		required := map[bool]string{true: "yes"}[field.Tag.Get("required") == "true"]
		text := r.meaning(strings.TrimSuffix(strings.TrimSuffix(t.Name(), "Input"), "Output"), name)
		for _, id := range slices.Sorted(maps.Keys(r.ruled[t.Name()+"."+name])) {
			text += fmt.Sprintf(" · [%s](appmesh-rules.md#%[1]s)", id)
		}
		place := ""
		if where {
			text += parameterRules[name]
			place = " body |"
			if field.Tag.Get("uri") != "" {
				place = " path |"
			} else if field.Tag.Get("query") != "" {
				place = " query |"
			}
		}
		fmt.Fprintf(w, "| `%s` |%s %s | %s | %s | %s |\n", name, place, describeType(field.Type), required, describeLimits(field), text)
	}
}

// types is the page of structures.
func (r *referencePages) types() string {
	var w strings.Builder
	w.WriteString("# The App Mesh API: structures\n" + madeBy + `
What [requests and answers](appmesh-api.md) are made of, with the limits of the service model. A member that is not
required may be left out; null is the same. A member that is not here is refused by name. The links behind a meaning are
[rules](appmesh-rules.md) beyond the limits.
`)
	for _, name := range slices.Sorted(maps.Keys(r.structures)) {
		t := r.structures[name]
		fmt.Fprintf(&w, "\n## %s\n\n", name)
		if used := slices.Compact(slices.Sorted(slices.Values(r.used[name]))); len(used) > 0 {
			fmt.Fprintf(&w, "In `%s`.", strings.Join(used, "`, `"))
			w.WriteString(map[bool]string{true: " Exactly one member is set.\n\n", false: "\n\n"}[isUnion(t)])
		} else if isUnion(t) {
			w.WriteString("Exactly one member is set.\n\n")
		}
		r.members(&w, t, false)
	}
	return w.String()
}

func isUnion(t reflect.Type) bool {
	_, union := reflect.Zero(t).Interface().(interface{ Union() })
	return union
}
