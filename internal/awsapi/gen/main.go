// Command gen turns an AWS service model into a Go package: types whose tags
// carry every constraint that the model states, the exceptions, the Service
// interface and a table of operations. All behaviour lives in package awsapi.
//
// Usage: gen -model models/appmesh.json -package appmesh -out ../../../api/appmesh
//
//go:generate go run . -model models/appmesh.json -package appmesh -out ../../../api/appmesh
//go:generate go run . -model models/acm.json -package acm -out ../../../api/acm
//go:generate go run . -model models/acm-pca.json -package acmpca -out ../../../api/acmpca
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// What a model may say. Members that mean nothing to a server (contexts of
// endpoint rules, deprecations, what may be retried) are here to be known.
type model struct {
	Metadata struct {
		APIVersion      string   `json:"apiVersion"`
		Auth            []string `json:"auth"`
		ServiceAbbrev   string   `json:"serviceAbbreviation"`
		ServiceFullName string   `json:"serviceFullName"`
		ServiceID       string   `json:"serviceId"`
		SigningName     string   `json:"signingName"`
		EndpointPrefix  string   `json:"endpointPrefix"`
		JSONVersion     string   `json:"jsonVersion"`
		Protocol        string   `json:"protocol"`
		Protocols       []string `json:"protocols"`
		Signature       string   `json:"signatureVersion"`
		TargetPrefix    string   `json:"targetPrefix"`
		UID             string   `json:"uid"`
	} `json:"metadata"`
	ClientContext json.RawMessage      `json:"clientContextParams"`
	Operations    map[string]operation `json:"operations"`
	Shapes        map[string]shape     `json:"shapes"`
	Version       string               `json:"version"`
}

type operation struct {
	Name          string          `json:"name"`
	HTTP          binding         `json:"http"`
	Idempotent    bool            `json:"idempotent"`
	ReadOnly      bool            `json:"readonly"`
	Input         reference       `json:"input"`  // without a shape: none
	Output        reference       `json:"output"` // without a shape: none
	Errors        []reference     `json:"errors"`
	StaticContext json.RawMessage `json:"staticContextParams"`
}

type binding struct {
	Method       string `json:"method"`
	RequestURI   string `json:"requestUri"`
	ResponseCode int    `json:"responseCode"`
}

type reference struct {
	Shape            string `json:"shape"`
	Location         string `json:"location"`
	LocationName     string `json:"locationName"`
	IdempotencyToken bool   `json:"idempotencyToken"`
	Box              bool   `json:"box"`
	deprecation
}

type deprecation struct {
	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	DeprecatedSince   string `json:"deprecatedSince"`
}

type shape struct {
	Type      string               `json:"type"`
	Members   map[string]reference `json:"members"`
	Required  []string             `json:"required"`
	Member    reference            `json:"member"`
	Enum      []string             `json:"enum"`
	Min       *int64               `json:"min"`
	Max       *int64               `json:"max"`
	Pattern   string               `json:"pattern"`
	Payload   string               `json:"payload"`
	Union     bool                 `json:"union"`
	Box       bool                 `json:"box"`
	Exception bool                 `json:"exception"`
	Fault     bool                 `json:"fault"`
	Sensitive bool                 `json:"sensitive"`
	Error     *struct {
		HTTPStatusCode int  `json:"httpStatusCode"`
		SenderFault    bool `json:"senderFault"`
	} `json:"error"`
	Retryable *struct {
		Throttling bool `json:"throttling"`
	} `json:"retryable"`
	deprecation
}

// pointers are the exceptions to goType's rule: required strings whose empty
// value is legal. A dead entry fails the build.
var pointers = map[string]bool{
	"TagRef.value":           true,
	"EdiPartyName.PartyName": true,
	"OtherName.Value":        true,
	"Qualifier.CpsUri":       true,
}

// patterns are what RE2 cannot read, said so that it can; by shape. A dead entry
// fails the build, and so does one whose model has changed.
var patterns = map[string]struct{ model, ours string }{
	"DomainNameString": { // labels that start with no hyphen; the last has two characters or more
		`(\*\.)?(((?!-)[A-Za-z0-9-]{0,62}[A-Za-z0-9])\.)+((?!-)[A-Za-z0-9-]{1,62}[A-Za-z0-9])`,
		`(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]`,
	},
}

type generator struct {
	model
	pkg  string
	used map[string]bool
	out  bytes.Buffer
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	modelFile := flag.String("model", "", "service model, JSON")
	pkg := flag.String("package", "", "name of the package to write")
	out := flag.String("out", "", "folder to write it to")
	flag.Parse()
	raw, err := os.ReadFile(*modelFile)
	if err != nil {
		log.Fatal(err)
	}
	files, err := generate(raw, filepath.Base(*modelFile), *pkg)
	if err != nil {
		log.Fatalf("%s: %v", *modelFile, err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(*out, name), content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate is pure: a model's bytes to file names and contents. A key of the
// model that it does not know is an error, so that no constraint is lost.
func generate(raw []byte, modelName, pkg string) (map[string][]byte, error) {
	g := &generator{pkg: pkg, used: map[string]bool{}}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&g.model); err != nil {
		return nil, err
	}
	header := fmt.Sprintf("// Code generated by internal/awsapi/gen from %s (sha256 %x). DO NOT EDIT.\n\n", modelName, sha256.Sum256(raw))
	files := map[string][]byte{}
	for name, emit := range map[string]func(){"types_gen.go": g.types, "service_gen.go": g.service} {
		g.out.Reset()
		g.out.WriteString(header)
		emit()
		source, err := format.Source(g.out.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, g.out.Bytes())
		}
		files[name] = source
	}
	for _, name := range append(sorted(pointers), sorted(patterns)...) {
		if _, mine := g.Shapes[strings.Split(name, ".")[0]]; mine && !g.used[name] {
			return nil, fmt.Errorf("the exception %s is dead", name)
		}
	}
	return files, nil
}

func (g *generator) printf(format string, args ...any) { fmt.Fprintf(&g.out, format, args...) }

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// initialisms are member names that are written in capitals in Go.
var initialisms = []string{"acm", "arn", "dns", "grpc", "http", "http2", "sds", "tcp", "tls", "uid"}

func export(name string) string {
	if slices.Contains(initialisms, name) {
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func (g *generator) types() {
	g.printf("package %s\n\n", g.pkg)
	if g.usesAPI() {
		g.printf("import \"github.com/fairlead/fairlead/api\"\n\n")
	}
	for _, name := range sorted(g.Shapes) {
		s := g.Shapes[name]
		switch {
		case s.Exception:
		case len(s.Enum) > 0:
			g.enum(name, s)
		case s.Type == "structure":
			g.structure(name, s)
		}
	}
}

func (g *generator) usesAPI() bool {
	for _, s := range g.Shapes {
		if s.Type == "timestamp" || s.Sensitive {
			return true
		}
	}
	return false
}

func (g *generator) enum(name string, s shape) {
	g.printf("// %s is one of %s.\ntype %s string\n\nconst (\n", name, strings.Join(s.Enum, ", "), name)
	for _, v := range s.Enum {
		g.printf("%s %s = %q\n", constant(name, v), name, v)
	}
	g.printf(")\n\n// Enum lists the values that the model knows.\nfunc (%s) Enum() []string { return []string{", name)
	for _, v := range s.Enum {
		g.printf("%q,", v)
	}
	g.printf("} }\n\n")
}

func constant(name, value string) string {
	words := strings.FieldsFunc(value, func(r rune) bool { return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9') })
	for i, w := range words {
		if w == strings.ToUpper(w) {
			w = strings.ToLower(w)
		}
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return name + strings.Join(words, "")
}

func (g *generator) structure(name string, s shape) {
	g.printf("// %s is the model's structure of that name", name)
	if s.Union {
		g.printf(": exactly one member is set")
	}
	g.printf(".\ntype %s struct {\n", name)
	for _, member := range sorted(s.Members) {
		required := slices.Contains(s.Required, member)
		g.printf("%s %s `%s`\n", export(member), g.goType(name, member, required), g.tags(s, member, required))
	}
	g.printf("}\n\n")
	if s.Union {
		g.printf("// Union marks a structure of which exactly one member is set.\nfunc (%s) Union() {}\n\n", name)
	}
}

// goType keeps an absent member apart from a zero one: whatever is optional is
// a pointer, and so is a required number whose zero value is legal. Required
// strings are plain: none of them may be empty, but for the listed exceptions.
// Lists, blobs, timestamps and secrets can be absent as they are.
func (g *generator) goType(structure, member string, required bool) string {
	target := g.Shapes[structure].Members[member].Shape
	s := g.Shapes[target]
	key := structure + "." + member
	base := g.element(target)
	switch s.Type {
	case "structure":
		return "*" + base
	case "list", "blob", "timestamp":
		return base
	case "integer", "long":
		if required && s.Min != nil && *s.Min > 0 {
			return base
		}
	case "string":
		if s.Sensitive {
			return base
		}
		if pointers[key] {
			g.used[key] = true
		} else if required {
			return base
		}
	}
	return "*" + base
}

func (g *generator) element(target string) string {
	s := g.Shapes[target]
	switch s.Type {
	case "structure":
		return target
	case "list":
		if s.Sensitive {
			return "[]api.Secret"
		}
		return "[]" + g.element(s.Member.Shape)
	case "blob":
		if s.Sensitive {
			return "api.SecretBlob"
		}
		return "[]byte"
	case "string":
		if s.Sensitive {
			return "api.Secret"
		}
		if len(s.Enum) > 0 {
			return target
		}
		return "string"
	case "integer", "long":
		return "int64"
	case "boolean":
		return "bool"
	case "timestamp":
		return "api.Timestamp"
	}
	log.Fatalf("shape %s has the unknown type %q", target, s.Type)
	return ""
}

func (g *generator) tags(s shape, member string, required bool) string {
	ref := s.Members[member]
	var tags []string
	tag := func(key, value string) { tags = append(tags, fmt.Sprintf("%s:%q", key, value)) }
	switch ref.Location {
	case "":
		omit := ",omitzero"
		if required && g.Shapes[ref.Shape].Type != "structure" {
			omit = ""
		}
		tag("json", member+omit)
	case "uri":
		tag("json", "-")
		tag("uri", ref.LocationName)
	case "querystring":
		tag("json", "-")
		tag("query", ref.LocationName)
	default:
		log.Fatalf("member %s has the unknown location %q", member, ref.Location)
	}
	if s.Payload == member {
		tag("payload", "true")
	}
	if ref.IdempotencyToken {
		tag("token", "true")
	}
	if required {
		tag("required", "true")
	}
	g.constraints(ref.Shape, "", tag)
	if target := g.Shapes[ref.Shape]; target.Type == "list" {
		g.constraints(target.Member.Shape, "each-", tag)
	}
	return strings.Join(tags, " ")
}

func (g *generator) constraints(name, prefix string, tag func(key, value string)) {
	s := g.Shapes[name]
	if s.Min != nil {
		tag(prefix+"min", fmt.Sprint(*s.Min))
	}
	if s.Max != nil {
		tag(prefix+"max", fmt.Sprint(*s.Max))
	}
	if s.Pattern != "" {
		tag(prefix+"pattern", g.pattern(name, s.Pattern))
	}
}

// codeUnit is how models write a character by its number, which RE2 writes in
// another way.
var codeUnit = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)

// pattern writes a pattern for RE2. A model means the whole string, whether or
// not it has anchors.
func (g *generator) pattern(name, pattern string) string {
	if exception, ok := patterns[name]; ok && exception.model == pattern {
		g.used[name], pattern = true, exception.ours
	}
	pattern = codeUnit.ReplaceAllString(pattern, `\x{$1}`)
	if !strings.HasPrefix(pattern, "^") || !strings.HasSuffix(pattern, "$") {
		if strings.Contains(pattern, "|") {
			pattern = "(?:" + pattern + ")"
		}
		pattern = "^" + pattern + "$"
	}
	if _, err := regexp.Compile(pattern); err != nil {
		log.Fatalf("shape %s: %v; add it to the table of patterns", name, err)
	}
	return pattern
}

func (g *generator) service() {
	g.printf("// Package %s is the API of %s, version %s: its types, exceptions and operations.\npackage %s\n\n", g.pkg, g.Metadata.ServiceFullName, g.Metadata.APIVersion, g.pkg)
	g.printf("import (\n\"context\"\n\n\"github.com/fairlead/fairlead/api\"\n)\n\n")
	g.printf("// SigningName is the service in the credential scope of a signed request.\nconst SigningName = %q\n\n", g.Metadata.SigningName)
	if g.Metadata.TargetPrefix != "" {
		g.printf("// TargetPrefix is the service in the name of an operation on the wire: %s.%s.\nconst TargetPrefix = %q\n\n", g.Metadata.TargetPrefix, sorted(g.Operations)[0], g.Metadata.TargetPrefix)
	}
	for _, name := range sorted(g.Shapes) {
		if s := g.Shapes[name]; s.Exception {
			status := s.status()
			g.printf("// New%s makes the exception of that name (HTTP %d).\nfunc New%s(format string, args ...any) *api.Exception {\nreturn api.Exceptionf(%q, %d, format, args...)\n}\n\n", name, status, name, name, status)
		}
	}
	g.printf("// Service is what an implementation of the API provides.\ntype Service interface {\n")
	for _, name := range sorted(g.Operations) {
		op := g.Operations[name]
		parameter, results := "", "error"
		if op.Input.Shape != "" {
			parameter = ", *" + op.Input.Shape
		}
		if op.Output.Shape != "" {
			results = "(*" + op.Output.Shape + ", error)"
		}
		g.printf("%s(context.Context%s) %s\n", name, parameter, results)
	}
	g.printf("}\n\n// Operations binds every operation of the model to a Service.\nvar Operations = []api.Operation[Service]{\n")
	for _, name := range sorted(g.Operations) {
		g.operation(name, g.Operations[name])
	}
	g.printf("}\n")
}

// status is the HTTP status of an exception. The protocols that know no other
// tell the caller's faults from the server's.
func (s shape) status() int {
	switch {
	case s.Error != nil:
		return s.Error.HTTPStatusCode
	case s.Fault:
		return 500
	}
	return 400
}

func (g *generator) operation(name string, op operation) {
	g.printf("{Name: %q, ", name)
	if g.Metadata.TargetPrefix == "" {
		g.printf("Method: %q, URI: %q, ", op.HTTP.Method, op.HTTP.RequestURI)
	} else if op.HTTP != (binding{Method: "POST", RequestURI: "/"}) {
		log.Fatalf("operation %s is not at POST /", name)
	}
	var errs []string
	for _, e := range op.Errors {
		errs = append(errs, fmt.Sprintf("%q", e.Shape))
	}
	sort.Strings(errs)
	input, in, argument := "struct{}", "_", ""
	if op.Input.Shape != "" {
		input, in, argument = op.Input.Shape, "in", ", in.(*"+op.Input.Shape+")"
	}
	call := fmt.Sprintf("s.%s(ctx%s)", name, argument)
	if op.Output.Shape == "" {
		call = "nil, " + call
	}
	g.printf("Errors: []string{%s},\nNew: func() any { return new(%s) },\nCall: func(ctx context.Context, s Service, %s any) (any, error) { return %s }},\n",
		strings.Join(errs, ", "), input, in, call)
}
