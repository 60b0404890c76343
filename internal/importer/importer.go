// Package importer reads what users of AWS App Mesh have — the output of
// aws appmesh describe-…, CloudFormation templates, Terraform state, manifests
// of the App Mesh controller for Kubernetes — as App Mesh resources. It decides
// what of it can be carried over, says of all the rest that it is not, and says
// what is unsafe. It applies nothing and asks no server. The page of the guide
// that it follows is docs/tasks/import-from-app-mesh.md.
package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Format is a language in which App Mesh resources are written down.
type Format string

// The formats.
const (
	Describe       Format = "describe"
	CloudFormation Format = "cloudformation"
	Terraform      Format = "terraform"
	Kubernetes     Format = "kubernetes"
)

// Formats are all formats.
func Formats() []Format { return []Format{Describe, CloudFormation, Terraform, Kubernetes} }

// Input is a file.
type Input struct {
	Name string // for messages
	Data []byte
	// Found says that nobody has named the file; it was in a folder. Then it need
	// not be one of ours.
	Found bool
}

// Options are what the files do not say themselves.
type Options struct {
	Format Format // empty: each document's is recognised by what is in it
	Mesh   string // of Kubernetes resources that name none
	// Parameters are values for CloudFormation templates: of a parameter by its
	// name, of a pseudo parameter ("AWS::Region"), of an attribute of a resource
	// ("Certificate.Arn", and "Certificate" for what Ref gives), of an import by
	// the name of the export.
	Parameters map[string]string
}

// Finding is something to know about what was read.
type Finding struct {
	Resource string `json:"resource,omitzero"` // mesh/apps/virtualNode/web; empty: none in particular
	Source   string `json:"source,omitzero"`   // file:line: path
	Message  string `json:"message"`
}

// Need is something outside App Mesh that resources refer to.
type Need struct {
	Name      string   `json:"name"`
	Resources []string `json:"resources"`
}

// Result is all that was read, and all that there is to say of it.
type Result struct {
	// Resources are in an order in which they can be made.
	Resources []manifest.Resource `json:"-"`
	Carried   []string            `json:"carried"` // names of Resources, in their order

	Lost   []Finding `json:"notCarriedOver"`
	Unsafe []Finding `json:"unsafe"`
	Notes  []Finding `json:"notes"`

	Certificates []Need     `json:"certificates"`          // ARNs of ACM certificates
	Authorities  []Need     `json:"authorities"`           // ARNs of root CAs
	Issuable     []Issuable `json:"-"`                     // what Certificates would be if they were issued anew, by ARN
	Namespaces   []Need     `json:"namespaces"`            // of Cloud Map
	Skipped      []Need     `json:"skipped"`               // kinds of things that are not App Mesh's
	Complete     bool       `json:"everythingCarriedOver"` // nothing is Lost
}

// Read reads files. All of them are one whole: references between them are
// found. The error is a file that cannot be read at all; everything else is a
// finding.
func Read(inputs []Input, options Options) (*Result, error) {
	s := &session{options: options, result: &Result{Lost: []Finding{}, Unsafe: []Finding{}, Notes: []Finding{}, Carried: []string{}}, first: map[string]place{}, skipped: map[string][]string{}, imported: map[string]bool{}}
	var documents []document
	for _, in := range inputs {
		found, err := s.open(in)
		switch {
		case err != nil && in.Found:
			s.lost("", place{file: in.Name}, "the file cannot be read: %v", err)
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", in.Name, err)
		}
		documents = append(documents, found...)
	}
	s.describe(documents)
	s.cloudFormation(documents)
	s.terraform(documents)
	s.kubernetes(documents)
	if s.spent > maxWork {
		return nil, fmt.Errorf("the files write out to more than %d values", maxWork)
	}
	return s.finish(), nil
}

// open reads the documents of a file.
func (s *session) open(in Input) ([]document, error) {
	nodes, err := parse(in.Data)
	if err != nil {
		return nil, err
	}
	var documents []document
	for _, n := range nodes {
		found, err := s.recognise(n, place{file: in.Name, line: n.line}, in.Found)
		if err != nil {
			return nil, err
		}
		documents = append(documents, found...)
	}
	return documents, nil
}

// document is a document of a known format.
type document struct {
	format Format
	root   *node
	place  place
}

// recognise says what a document is. A list is several.
func (s *session) recognise(n *node, at place, orSkip bool) ([]document, error) {
	if n.kind == list {
		var documents []document
		for i, item := range n.items {
			if item.kind == list {
				return nil, fmt.Errorf("line %d: a document must be an object, not a list", item.line)
			}
			found, err := s.recognise(item, at.item(i, item), orSkip)
			if err != nil {
				return nil, err
			}
			documents = append(documents, found...)
		}
		return documents, nil
	}
	format := s.options.Format
	if format == "" {
		format = guess(n)
	}
	switch {
	case n.kind == object && format != "":
		return []document{{format, n, at}}, nil
	case orSkip:
		s.skip("document of an unknown format", at)
		return nil, nil
	case n.kind != object:
		return nil, fmt.Errorf("line %d: a document must be an object, not %s", n.line, n.kind)
	}
	return nil, fmt.Errorf("line %d: the document is none of %s; say which with --from", n.line, joinFormats())
}

func guess(n *node) Format {
	switch {
	case n.get("apiVersion") != nil && n.get("kind") != nil:
		return Kubernetes
	case n.get("terraform_version") != nil || n.get("format_version") != nil:
		return Terraform
	case n.get("AWSTemplateFormatVersion") != nil || n.get("Resources") != nil:
		return CloudFormation
	}
	for _, m := range n.members {
		if _, ok := describable(m.name); ok || listed(m.name) {
			return Describe
		}
	}
	return ""
}

func joinFormats() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// place is where something stands.
type place struct {
	file string
	line int
	path string
}

func (p place) String() string {
	s := p.file
	if p.line > 0 {
		s = fmt.Sprintf("%s:%d", s, p.line)
	}
	if p.path != "" {
		s += ": " + p.path
	}
	return s
}

// member is the place of a member of the object that stands at p.
func (p place) member(name string, n *node) place {
	if strings.ContainsAny(name, ".[]\" ") || name == "" {
		p.path += fmt.Sprintf("[%q]", shorten(name))
	} else if p.path == "" {
		p.path = shorten(name)
	} else {
		p.path += "." + shorten(name)
	}
	if n != nil && n.line > 0 {
		p.line = n.line
	}
	return p
}

// item is the place of an item of the list that stands at p.
func (p place) item(i int, n *node) place {
	p.path = fmt.Sprintf("%s[%d]", p.path, i)
	if n != nil && n.line > 0 {
		p.line = n.line
	}
	return p
}

// shorten bounds what a message quotes.
func shorten(s string) string {
	const limit = 120
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return s
}

// session collects what is read.
type session struct {
	options  Options
	result   *Result
	first    map[string]place // by resource, where it was read
	skipped  map[string][]string
	imported map[string]bool // names of exports that templates ask for
	spent    int
}

// Bounds on what references within files can make of them, and on what is said
// of it.
const (
	maxWork     = 4 << 20
	maxFindings = 10_000
)

// spend counts a value that is looked at, and says whether to go on.
func (s *session) spend() bool {
	s.spent++
	return s.spent <= maxWork
}

func (s *session) lost(resource string, at place, format string, args ...any) {
	s.result.Lost = add(s.result.Lost, resource, at.String(), format, args...)
}

func (s *session) note(resource string, at place, format string, args ...any) {
	s.result.Notes = add(s.result.Notes, resource, at.String(), format, args...)
}

func add(findings []Finding, resource, source, format string, args ...any) []Finding {
	switch {
	case len(findings) < maxFindings:
		return append(findings, Finding{resource, source, fmt.Sprintf(format, args...)})
	case len(findings) == maxFindings:
		return append(findings, Finding{Message: "there is more of this kind, which is not listed"})
	}
	return findings
}

// skip counts something that is not App Mesh's.
func (s *session) skip(what string, at place) {
	s.skipped[shorten(what)] = append(s.skipped[shorten(what)], at.String())
}

func (s *session) finish() *Result {
	r := s.result
	manifest.Sort(r.Resources)
	for i := range r.Resources {
		r.Carried = append(r.Carried, resourceName(r.Resources[i].Mesh, r.Resources[i].ID))
	}
	s.review()
	r.Skipped = needs(s.skipped)
	r.Complete = len(r.Lost) == 0
	return r
}

// resourceName is a resource as an ARN has it.
func resourceName(meshName string, id mesh.ID) string {
	if id.Kind == mesh.KindMesh {
		return "mesh/" + meshName
	}
	return "mesh/" + meshName + "/" + id.String()
}

// needs are names with who needs them, both in order and once.
func needs(by map[string][]string) []Need {
	all := []Need{}
	for name, resources := range by {
		slices.Sort(resources)
		all = append(all, Need{name, slices.Compact(resources)})
	}
	slices.SortFunc(all, func(a, b Need) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
