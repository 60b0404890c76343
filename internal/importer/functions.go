package importer

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/internal/manifest"
)

// maxText bounds what functions make.
const maxText = 64 << 10

// maxCalls bounds functions within functions, and references along references.
const maxCalls = 200

// unknown is a value that cannot be known, and why.
func unknown(line int, format string, args ...any) *node {
	return &node{kind: unresolved, line: line, text: fmt.Sprintf(format, args...)}
}

// eval writes out the functions within a value. nil is no value, as Ref:
// AWS::NoValue gives.
func (t *template) eval(n *node) *node {
	if n == nil || !t.session.spend() {
		return nil
	}
	t.depth++
	defer func() { t.depth-- }()
	if t.depth > maxCalls {
		return unknown(n.line, "functions and references are nested more than %d deep", maxCalls)
	}
	switch n.kind {
	case text:
		if strings.Contains(n.text, "{{resolve:") {
			return unknown(n.line, "%q is read from another service of AWS: write the value itself", shorten(n.text))
		}
		return n
	case list:
		out := &node{kind: list, line: n.line}
		for _, item := range n.items {
			if v := t.eval(item); v != nil {
				out.items = append(out.items, v)
			}
		}
		return out
	case object:
		return t.evalObject(n)
	}
	return n
}

func (t *template) evalObject(n *node) *node {
	for _, m := range n.members {
		if m.name != "Ref" && !strings.HasPrefix(m.name, "Fn::") {
			continue
		}
		if len(n.members) > 1 {
			return unknown(n.line, "%s must be alone in its object", shorten(m.name))
		}
		return moved(t.call(m.name, m.value, n.line), n.line)
	}
	out := &node{kind: object, line: n.line}
	for _, m := range n.members {
		if v := t.eval(m.value); v != nil {
			out.members = append(out.members, member{m.name, v})
		}
	}
	return out
}

// moved is a value where a function has put it.
func moved(n *node, line int) *node {
	if n == nil {
		return nil
	}
	return &node{kind: n.kind, text: n.text, line: line, items: n.items, members: n.members}
}

// call is what a function gives.
func (t *template) call(name string, argument *node, line int) *node {
	switch name {
	case "Ref":
		return t.reference(argument.str(), line)
	case "Fn::GetAtt":
		return t.getAtt(argument, line)
	case "Fn::If":
		return t.branch(argument, line)
	case "Fn::Sub":
		return t.sub(argument, line)
	}
	v := t.eval(argument)
	if v == nil {
		return unknown(line, "%s has no argument", name)
	}
	if u := firstUnknown(v); u != nil && name != "Fn::Select" {
		return u
	}
	switch name {
	case "Fn::Join":
		return join(v, line)
	case "Fn::Select":
		return selectItem(v, line)
	case "Fn::Split":
		return split(v, line)
	case "Fn::FindInMap":
		return t.findInMap(v, line)
	case "Fn::ImportValue":
		return t.importValue(v.str(), line)
	case "Fn::Base64":
		return newText(base64.StdEncoding.EncodeToString([]byte(v.str())), line)
	}
	return unknown(line, "%s cannot be written out here: write the value itself", shorten(name))
}

func firstUnknown(n *node) *node {
	if n.kind == unresolved {
		return n
	}
	for _, item := range n.items {
		if u := firstUnknown(item); u != nil {
			return u
		}
	}
	for _, m := range n.members {
		if u := firstUnknown(m.value); u != nil {
			return u
		}
	}
	return nil
}

// reference is what Ref gives. For a resource of App Mesh CloudFormation gives
// the ARN; here it is the name, which is what every field takes.
func (t *template) reference(name string, line int) *node {
	switch name {
	case "AWS::NoValue":
		return nil
	case "AWS::Partition":
		return newText(orDefault(t.session.options.Parameters[name], "aws"), line)
	case "AWS::URLSuffix":
		return newText(orDefault(t.session.options.Parameters[name], "amazonaws.com"), line)
	}
	if parameter := t.root.at("Parameters", name); parameter != nil {
		return t.parameter(name, parameter, line)
	}
	if value, ok := t.session.options.Parameters[name]; ok {
		return newText(value, line)
	}
	resource := t.root.at("Resources", name)
	if kind, ok := cloudFormationKind(resource.get("Type").str()); ok {
		return t.attribute(name, upper(string(kind))+"Name")
	}
	switch {
	case resource != nil:
		return unknown(line, "it is the %s %s, which is not in the template: give --parameter %[2]s=VALUE", shorten(resource.get("Type").str()), shorten(name))
	case strings.HasPrefix(name, "AWS::"):
		return unknown(line, "it depends on %s: give --parameter %[1]s=VALUE", shorten(name))
	}
	return unknown(line, "there is nothing called %q in the template", shorten(name))
}

func orDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func (t *template) parameter(name string, parameter *node, line int) *node {
	kind := parameter.get("Type").str()
	value, given := t.session.options.Parameters[name]
	if !given {
		def := parameter.get("Default")
		if def == nil || def.kind == list || def.kind == object {
			return unknown(line, "the parameter %s has no default: give --parameter %[1]s=VALUE", shorten(name))
		}
		if strings.HasPrefix(kind, "AWS::SSM::") {
			return unknown(line, "the parameter %s is read from Systems Manager: give --parameter %[1]s=VALUE", shorten(name))
		}
		value = def.text
	}
	if kind != "CommaDelimitedList" && !strings.Contains(kind, "List<") {
		return newText(value, line)
	}
	out := &node{kind: list, line: line}
	for item := range strings.SplitSeq(value, ",") {
		out.items = append(out.items, newText(strings.TrimSpace(item), line))
	}
	return out
}

// getAtt takes "Logical.Attribute" or ["Logical", "Attribute"].
func (t *template) getAtt(argument *node, line int) *node {
	var logical, attribute string
	if argument.kind == list && len(argument.items) == 2 {
		logical = argument.items[0].str()
		if v := t.eval(argument.items[1]); v != nil {
			attribute = v.str()
		}
	} else {
		logical, attribute, _ = strings.Cut(argument.str(), ".")
	}
	if logical == "" || attribute == "" {
		return unknown(line, "Fn::GetAtt must name a resource and its attribute")
	}
	return t.attribute(logical, attribute)
}

// attribute is an attribute of a resource of the template: what is given for it,
// or the property that it shows.
func (t *template) attribute(logical, attribute string) *node {
	key := logical + "." + attribute
	if value, ok := t.session.options.Parameters[key]; ok {
		return newText(value, 0)
	}
	if known, ok := t.attributes[key]; ok {
		return known
	}
	if t.busy[key] {
		return unknown(0, "%s refers to itself", shorten(key))
	}
	t.busy[key] = true
	v := t.compute(logical, attribute)
	delete(t.busy, key)
	t.attributes[key] = v
	return v
}

func (t *template) compute(logical, attribute string) *node {
	resource := t.root.at("Resources", logical)
	if resource == nil {
		return unknown(0, "there is nothing called %q in the template", shorten(logical))
	}
	kind := resource.get("Type").str()
	_, ours := cloudFormationKind(kind)
	property := resource.at("Properties", attribute)
	switch {
	case property != nil && (ours || strings.HasPrefix(kind, "AWS::ServiceDiscovery::")):
		if v := t.eval(property); v != nil {
			return v
		}
	case ours && attribute == "Arn":
		return t.arnOf(logical, resource)
	case ours && (attribute == "ResourceOwner" || attribute == "MeshOwner"):
		return t.reference("AWS::AccountId", resource.line)
	}
	return unknown(resource.line, "it is %s of the %s %s, which is not in the template: give --parameter %[3]s.%[1]s=VALUE", shorten(attribute), shorten(kind), shorten(logical))
}

// arnOf is the ARN of a resource of App Mesh.
func (t *template) arnOf(logical string, resource *node) *node {
	kind, _ := cloudFormationKind(resource.get("Type").str())
	parts := []*node{newText("arn:", 0), t.reference("AWS::Partition", 0), newText(":appmesh:", 0), t.reference("AWS::Region", 0), newText(":", 0), t.reference("AWS::AccountId", 0), newText(":mesh/", 0), t.attribute(logical, "MeshName")}
	if parent := manifest.ParentKind(kind); parent != "" {
		parts = append(parts, newText("/"+string(parent)+"/", 0), t.attribute(logical, upper(string(parent))+"Name"))
	}
	if kind != "mesh" {
		parts = append(parts, newText("/"+string(kind)+"/", 0), t.attribute(logical, upper(string(kind))+"Name"))
	}
	return concat(parts, resource.line)
}

// concat joins scalars.
func concat(parts []*node, line int) *node {
	var b strings.Builder
	for _, part := range parts {
		switch {
		case part == nil:
			return unknown(line, "a part of the text has no value")
		case part.kind == unresolved:
			return part
		case part.kind == list || part.kind == object || part.kind == null:
			return unknown(line, "a part of the text is %s", part.kind)
		}
		b.WriteString(part.text)
		if b.Len() > maxText {
			return unknown(line, "the text has more than %d bytes", maxText)
		}
	}
	return newText(b.String(), line)
}

// arguments are the items of a function's list, if there are as many.
func arguments(v *node, n int) []*node {
	if v.kind != list || len(v.items) != n {
		return nil
	}
	return v.items
}

func join(v *node, line int) *node {
	args := arguments(v, 2)
	if args == nil || args[1].kind != list {
		return unknown(line, "Fn::Join must have a delimiter and a list")
	}
	var parts []*node
	for i, item := range args[1].items {
		if i > 0 {
			parts = append(parts, newText(args[0].str(), line))
		}
		parts = append(parts, item)
	}
	return concat(parts, line)
}

func selectItem(v *node, line int) *node {
	args := arguments(v, 2)
	if args == nil {
		return unknown(line, "Fn::Select must have an index and a list")
	}
	if args[1].kind == unresolved {
		return args[1]
	}
	i, err := strconv.Atoi(args[0].str())
	if err != nil || i < 0 || i >= len(args[1].items) {
		return unknown(line, "Fn::Select has no item %q", shorten(args[0].str()))
	}
	return args[1].items[i]
}

func split(v *node, line int) *node {
	args := arguments(v, 2)
	if args == nil || args[0].str() == "" {
		return unknown(line, "Fn::Split must have a delimiter and a string")
	}
	out := &node{kind: list, line: line}
	for part := range strings.SplitSeq(args[1].str(), args[0].str()) {
		out.items = append(out.items, newText(part, line))
	}
	return out
}

func (t *template) findInMap(v *node, line int) *node {
	args := arguments(v, 3)
	if args == nil {
		return unknown(line, "Fn::FindInMap must have a map and two keys")
	}
	found := t.root.at("Mappings", args[0].str(), args[1].str(), args[2].str())
	if found == nil {
		return unknown(line, "the mapping %s has no %s.%s", shorten(args[0].str()), shorten(args[1].str()), shorten(args[2].str()))
	}
	return t.eval(found) // so that its length counts
}

// importValue looks at what the templates export that are read together.
func (t *template) importValue(name string, line int) *node {
	t.session.imported[name] = true
	if value, ok := t.session.options.Parameters[name]; ok {
		return newText(value, line)
	}
	for _, other := range t.all {
		outputs := other.root.get("Outputs")
		if outputs == nil || other.depth+t.depth > maxCalls {
			continue
		}
		for _, m := range outputs.members {
			exported := m.value.at("Export", "Name")
			if exported == nil || other.busy["export "+m.name] {
				continue
			}
			other.busy["export "+m.name] = true
			var v *node
			if found := other.eval(exported); found != nil && found.kind == text && found.text == name {
				v = other.eval(m.value.get("Value"))
			}
			delete(other.busy, "export "+m.name)
			if v != nil {
				return v
			}
		}
	}
	return unknown(line, "it is what another stack exports as %q: give that template, too, or --parameter %[1]s=VALUE", shorten(name))
}

var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// sub takes a text, or a text and values for its variables.
func (t *template) sub(argument *node, line int) *node {
	format, values := argument, (*node)(nil)
	if argument.kind == list && len(argument.items) == 2 {
		format, values = argument.items[0], argument.items[1]
	}
	if format.kind != text {
		return unknown(line, "Fn::Sub must have a string")
	}
	if strings.Contains(format.text, "{{resolve:") {
		return unknown(line, "%q is read from another service of AWS: write the value itself", shorten(format.text))
	}
	var parts []*node
	end := 0
	for _, m := range variable.FindAllStringSubmatchIndex(format.text, -1) {
		parts = append(parts, newText(format.text[end:m[0]], line))
		end = m[1]
		name := strings.TrimSpace(format.text[m[2]:m[3]])
		literal, isLiteral := strings.CutPrefix(name, "!")
		logical, attribute, isAttribute := strings.Cut(name, ".")
		switch {
		case isLiteral:
			parts = append(parts, newText("${"+literal+"}", line))
		case values.get(name) != nil:
			parts = append(parts, t.eval(values.get(name)))
		case isAttribute:
			parts = append(parts, t.attribute(logical, attribute))
		default:
			parts = append(parts, t.reference(name, line))
		}
	}
	return concat(append(parts, newText(format.text[end:], line)), line)
}

// branch is Fn::If.
func (t *template) branch(argument *node, line int) *node {
	args := arguments(argument, 3)
	if args == nil {
		return unknown(line, "Fn::If must have a condition and two values")
	}
	switch c := t.condition(args[0].str()); {
	case c.unknown != "":
		return unknown(line, "%s", c.unknown)
	case c.value:
		return t.eval(args[1])
	}
	return t.eval(args[2])
}

// truth is a condition's value, or why it cannot be known.
type truth struct {
	value   bool
	unknown string
}

// condition is the value of a named condition.
func (t *template) condition(name string) truth {
	if known, ok := t.conditions[name]; ok {
		return known
	}
	n := t.root.at("Conditions", name)
	if n == nil {
		return truth{unknown: fmt.Sprintf("there is no condition %q in the template", shorten(name))}
	}
	key := "condition " + name
	if t.busy[key] {
		return truth{unknown: fmt.Sprintf("the condition %q depends on itself", shorten(name))}
	}
	t.busy[key] = true
	c := t.test(n)
	delete(t.busy, key)
	t.conditions[name] = c
	return c
}

// test is the value of a function that makes a condition.
func (t *template) test(n *node) truth {
	t.depth++
	defer func() { t.depth-- }()
	if !t.session.spend() || t.depth > maxCalls || n.kind != object || len(n.members) != 1 {
		return truth{unknown: "a condition must be one function"}
	}
	name, argument := n.members[0].name, n.members[0].value
	switch name {
	case "Condition":
		return t.condition(argument.str())
	case "Fn::Equals":
		return t.equal(argument)
	case "Fn::And":
		return t.any(argument, false)
	case "Fn::Or":
		return t.any(argument, true)
	case "Fn::Not":
		if args := arguments(argument, 1); args != nil {
			c := t.test(args[0])
			return truth{!c.value, c.unknown}
		}
	}
	return truth{unknown: fmt.Sprintf("%s makes no condition", shorten(name))}
}

func (t *template) equal(argument *node) truth {
	args := arguments(argument, 2)
	if args == nil {
		return truth{unknown: "Fn::Equals must have two values"}
	}
	a, b := t.eval(args[0]), t.eval(args[1])
	for _, side := range []*node{a, b} {
		if side == nil || side.kind == list || side.kind == object {
			return truth{unknown: "Fn::Equals must have two strings"}
		}
		if side.kind == unresolved {
			return truth{unknown: side.text}
		}
	}
	return truth{value: a.text == b.text}
}

// any looks for the value that decides: true for Or, false for And.
func (t *template) any(argument *node, decides bool) truth {
	result := truth{value: !decides}
	for _, item := range argument.items {
		c := t.test(item)
		if c.unknown == "" && c.value == decides {
			return truth{value: decides}
		}
		if c.unknown != "" {
			result.unknown = c.unknown
		}
	}
	if argument.kind != list || len(argument.items) == 0 {
		result.unknown = "Fn::And and Fn::Or must have a list of conditions"
	}
	return result
}
