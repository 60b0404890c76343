package server

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
)

// operations is the page of operations.
func (r *referencePages) operations() string {
	var w strings.Builder
	w.WriteString("# The App Mesh API: operations\n" + madeBy + `
All operations of AWS App Mesh, version 2019-01-25, at the API's address, signed with SigV4 for the service ` + "`appmesh`" + `. A
body is one JSON object. Names in a path are percent-encoded. Success is always 200, and the body of an answer is the
structure itself, without a member around it. What may be in a request is in [structures](appmesh-types.md), what else must
be true of it in [rules](appmesh-rules.md), what an error means in [errors](statuses.md#the-api).

- **Create** makes a resource, with version 1. The same request with the same ` + "`clientToken`" + ` is answered with the resource
  that it has made; any other request for a name that is taken, with ConflictException.
- **Update** replaces the spec as a whole, and adds one to the version, also if nothing is different. The same request with
  the same ` + "`clientToken`" + ` counts once.
- **Delete** answers with what was deleted, its status ` + "`DELETED`" + `. The name is free at once.
- **List** answers in the order of names, 100 at a time or ` + "`limit`" + `. A ` + "`nextToken`" + ` is sealed: it is taken by every server of the
  store, after a restart too, for the same list and the same caller.
- A spec comes back as it was sent: nothing is filled in but the port of a health check.
- A write is one transaction: all of it happens, or nothing.

| operation | request |
|---|---|
`)
	operations := slices.Clone(appmesh.Operations)
	slices.SortStableFunc(operations, func(a, b api.Operation[appmesh.Service]) int {
		return strings.Compare(subject(a.Name), subject(b.Name))
	})
	for _, op := range operations {
		fmt.Fprintf(&w, "| [%s](#%s) | `%s %s` |\n", op.Name, strings.ToLower(op.Name), op.Method, op.URI)
	}
	for _, op := range operations {
		in, out := reflect.TypeOf(op.New()).Elem(), output(op)
		fmt.Fprintf(&w, "\n## %s\n\n`%s %s`\n\n", op.Name, op.Method, op.URI)
		r.members(&w, in, true)
		fmt.Fprintf(&w, "\nAnswers %s.\n", r.answer(out))
		fmt.Fprintf(&w, "\nErrors: `%s`.\n", strings.Join(op.Errors, "`, `"))
	}
	return w.String()
}

// subject is what an operation is about: operations on one kind stand together.
func subject(name string) string {
	for _, verb := range []string{"Create", "Describe", "Update", "Delete", "List", "Tag", "Untag"} {
		if rest, ok := strings.CutPrefix(name, verb); ok {
			switch rest {
			case "Meshes":
				return "Mesh"
			case "Resource", "TagsForResource":
				return "~tags" // behind the kinds
			}
			return strings.TrimSuffix(rest, "s")
		}
	}
	return name
}

// answer is what the body of an answer is.
func (r *referencePages) answer(out reflect.Type) string {
	var parts []string
	for i := range out.NumField() {
		field := out.Field(i)
		if field.Tag.Get("payload") == "true" {
			return "with " + describeType(field.Type)
		}
		parts = append(parts, fmt.Sprintf("`%s` (%s: %s)", memberName(field), describeType(field.Type), r.meaning(out.Name(), memberName(field))))
	}
	if len(parts) == 0 {
		return "with `{}`"
	}
	return "with " + strings.Join(parts, " and ")
}

// ownWords are the rules whose refusals App Mesh worded: tools match on them.
var ownWords = []string{"there", "parent", "discovery-needs-listener", "route-port", "router-ports"}

// rules is the page of rules, quotas and messages.
func (r *referencePages) rules() string {
	var w strings.Builder
	w.WriteString("# The App Mesh API: rules, quotas and messages\n" + madeBy + `
What must be true of a request beyond the limits of its [structures](appmesh-types.md). A refusal is BadRequestException
unless another name stands before its message. It names the path of the member and its value, and everything that is
wrong with what stands in the request. References are looked up after that, in the transaction that writes.

Messages are examples, from the tests. Those marked † have App Mesh's own words, for tools that match on them.

## Rules on specs
`)
	for _, id := range specRuleIDs() {
		says, kinds, message := specRule(id)
		fmt.Fprintf(&w, "\n### %s\n\nIn the specs of %s: %s.\n\n```text\n%s\n```\n", id, strings.Join(kinds, ", "), says, marked(id, message))
	}
	sections := []struct {
		title string
		rules []namedRule
	}{
		{"Rules on requests", slices.Concat(namedRules(requestRules), wireRules)},
		{"Rules on references", referenceRules()},
	}
	for _, section := range sections {
		fmt.Fprintf(&w, "\n## %s\n", section.title)
		for _, rule := range section.rules {
			fmt.Fprintf(&w, "\n### %s\n\n%s.\n", rule.id, strings.ToUpper(rule.says[:1])+rule.says[1:])
			if message := refusal(rule.id); message != "" {
				fmt.Fprintf(&w, "\n```text\n%s\n```\n", marked(rule.id, message))
			}
		}
	}
	writeDeletions(&w)
	writeQuotas(&w)
	return w.String()
}

func marked(id, message string) string {
	if slices.Contains(ownWords, id) {
		return "† " + message
	}
	return message
}

// specRuleIDs are the rules on specs, in the order of their tables.
func specRuleIDs() []string {
	var all []string
	for _, k := range ruledKinds() {
		for _, rule := range k.rules {
			if !slices.Contains(all, rule.id) {
				all = append(all, rule.id)
			}
		}
	}
	return all
}

// specRule gathers a rule from all kinds that have it.
func specRule(id string) (says string, kinds []string, message string) {
	for _, k := range ruledKinds() {
		for _, rule := range k.rules {
			if rule.id != id {
				continue
			}
			kinds = append(kinds, k.noun)
			if says == "" {
				says = rule.says
			} else if says != rule.says {
				says += "; of " + k.noun + ": " + rule.says
			}
		}
		for _, c := range k.cases {
			if c.rule == id && len(c.want) == 1 && message == "" {
				message = c.want[0]
			}
		}
	}
	return says, kinds, message
}

// refusal is the message of a rule's first refused case.
func refusal(id string) string {
	for _, c := range requestRuleCases() {
		if c.rule == id && c.code != "" {
			message := strings.NewReplacer(`\"`, `"`, strings.Repeat("a", 37), strings.Repeat("a", 12)+"…").Replace(c.message)
			if c.code != "BadRequestException" {
				message = c.code + ": " + message
			}
			return message
		}
	}
	return ""
}

func writeDeletions(w *strings.Builder) {
	w.WriteString(`
## What blocks a deletion

ResourceInUseException, †. Backends of virtual nodes block nothing, and neither do proxies: their streams end.

| of | while there are | message |
|---|---|---|
`)
	why := []struct{ of, while string }{
		{"mesh", "virtual nodes, services, routers or gateways in it"}, {"virtual node", "routes to it"}, {"virtual node", "virtual services that it provides"},
		{"virtual router", "routes of it"}, {"virtual service", "gateway routes to it"}, {"virtual gateway", "gateway routes of it"}, {"virtual router", "virtual services that it provides"},
	}
	next := 0
	for _, c := range deletionCases {
		if c.want != "" && next < len(why) {
			fmt.Fprintf(w, "| %s | %s | `%s` |\n", why[next].of, why[next].while, c.want)
			next++
		}
	}
}

func writeQuotas(w *strings.Builder) {
	w.WriteString(`
## Quotas

Set with ` + "`--quota NAME=VALUE`" + `, the same on every server of a store. They count what is the mesh owner's, whoever makes it, in the
transaction that makes it: creates that race end at the quota. What is there already stays when a quota becomes less.
Proxies are counted by each server for itself; one too many is refused with gRPC status 8, and tries again. That a route has at most 10 weighted targets is in the model, and fixed.

| quota | default | App Mesh's | counts |
|---|---|---|---|
`)
	for _, q := range quotas {
		fmt.Fprintf(w, "| `%s` | %s | %d | %s |\n", q.name, strconv.Itoa(q.preset), q.appMesh, q.counts)
	}
}
