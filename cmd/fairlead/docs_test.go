package main

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/netip"
	neturl "net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/internal/agent"
	"github.com/fairlead/fairlead/internal/awsacm"
	"github.com/fairlead/fairlead/internal/pki"
	"github.com/fairlead/fairlead/internal/xds"
)

// These tests hold the pages of docs/ to the program. e2e/guide runs the
// commands of the pages.

var update = flag.Bool("update", false, "write docs/reference/cli.md anew")

const (
	repository = "../.."
	docs       = repository + "/docs/"
)

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(docs + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are the names of all pages, below docs/, and README.md.
func pages(t *testing.T) []string {
	t.Helper()
	names := []string{"../README.md"}
	err := fs.WalkDir(os.DirFS(docs), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".md") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// tableRows are the rows of a page's tables: the cells of each, without the
// pipes. A pipe within a cell is written \|.
func tableRows(page string) [][]string {
	var rows [][]string
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|") {
			cells = append(cells, strings.TrimSpace(strings.ReplaceAll(cell, "\x00", "|")))
		}
		rows = append(rows, cells)
	}
	return rows
}

// block is a fenced block of a page.
type block struct {
	page string
	line int
	kind string // sh, text, json, …
	text string
}

func blocks(t *testing.T) []block {
	t.Helper()
	var all []block
	for _, page := range pages(t) {
		var open *block
		for i, line := range strings.Split(readPage(t, page), "\n") {
			kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case fence && open == nil:
				open = &block{page: page, line: i + 1, kind: kind}
			case fence:
				all = append(all, *open)
				open = nil
			case open != nil:
				open.text += line + "\n"
			}
		}
		if open != nil {
			t.Errorf("%s:%d: the block does not end", page, open.line)
		}
	}
	return all
}

func TestCLIReference(t *testing.T) {
	var page strings.Builder
	page.WriteString("# The commands of fairlead\n\n<!-- Made by: go test ./cmd/fairlead -run TestCLIReference -update -->\n")
	describeCommand(&page, rootCommand())
	made := page.String()
	if *update {
		if err := os.WriteFile(docs+"reference/cli.md", []byte(made), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := gocmp.Diff(made, readPage(t, "reference/cli.md")); diff != "" {
		t.Errorf("docs/reference/cli.md is not what the commands say; run this test with -update (-made +page):\n%s", diff)
	}
}

func describeCommand(w *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n%s.\n\n```text\n%s\n", cmd.CommandPath(), cmd.Short, strings.TrimSpace(cmd.UseLine()))
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	w.WriteString("```\n")
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nFor example:\n\n```text\n%s\n```\n", strings.ReplaceAll(strings.TrimSpace(cmd.Example), "\n  ", "\n"))
	}
	heading := "\n| flag | default | meaning |\n|---|---|---|\n"
	flags := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "[]" {
			def = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(w, "%s| %s | %s | %s |\n", heading, name, def, strings.ReplaceAll(f.Usage, "|", `\|`))
		heading = ""
	}
	cmd.LocalFlags().VisitAll(flags)
	cmd.InheritedFlags().VisitAll(flags)
	for _, c := range cmd.Commands() {
		if c.Name() != "help" && c.Name() != "completion" {
			describeCommand(w, c)
		}
	}
}

// TestCommandsInPages parses every line of a page that runs fairlead, also
// those in blocks that no test can run.
func TestCommandsInPages(t *testing.T) {
	command := regexp.MustCompile(`(?:^|[;&|] *|sudo |\./|/|do |exec |until |if )fairlead((?: +[^;&|<>)#]+)?)`)
	found := 0
	for _, b := range blocks(t) {
		if b.page == "reference/cli.md" || b.kind != "sh" && b.kind != "text" && b.kind != "" {
			continue
		}
		text := strings.ReplaceAll(b.text, "\\\n", " ")
		for line := range strings.Lines(text) {
			for _, match := range command.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				words := strings.Fields(match[1])
				if len(words) == 0 || !regexp.MustCompile(`^(-|[a-z])`).MatchString(words[0]) {
					continue
				}
				found++
				if err := parseCommand(words); err != nil {
					t.Errorf("%s:%d: fairlead %s: %v", b.page, b.line, strings.Join(words, " "), err)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found in the pages", found)
	}
}

// parseCommand does all that happens before a command runs.
func parseCommand(words []string) error {
	for i, word := range words {
		words[i] = strings.Trim(word, `"'`)
	}
	cmd, args, err := rootCommand().Find(words)
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("%s has no command %s", cmd.CommandPath(), args[0])
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestLinks follows the links between pages, and to files of the repository.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			target, err := neturl.Parse(match[1])
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if target.IsAbs() {
				continue
			}
			file := page
			if target.Path != "" {
				file = filepath.Join(filepath.Dir(page), target.Path)
			}
			if _, err := os.Stat(docs + file); err != nil {
				t.Errorf("%s links to %s, which is not there", page, match[1])
			} else if target.Fragment != "" && !slices.Contains(anchors(readPage(t, file)), target.Fragment) {
				t.Errorf("%s links to %s, which has no such heading", page, match[1])
			}
		}
	}
}

// anchors are the fragments of a page's headings, as forges make them.
func anchors(page string) []string {
	var all []string
	for line := range strings.Lines(page) {
		text, heading := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !heading || !strings.HasPrefix(line, "#") {
			continue
		}
		text = strings.ToLower(strings.TrimSpace(text))
		text = regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(text, "")
		all = append(all, strings.ReplaceAll(text, " ", "-"))
	}
	return all
}

// TestEveryPageIsListed: a page that nothing links to is not read.
func TestEveryPageIsListed(t *testing.T) {
	index := readPage(t, "README.md")
	for _, page := range pages(t) {
		if page != "../README.md" && page != "README.md" && !strings.Contains(index, "]("+page+")") {
			t.Errorf("docs/README.md does not list %s", page)
		}
	}
}

// sources are the string literals of the program, those joined by + with \x00
// in the place of what is not constant, and comments not.
func sources(t *testing.T, folders ...string) []string {
	t.Helper()
	var all []string
	for _, folder := range folders {
		err := filepath.WalkDir(repository+"/"+folder, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text, constant := textOf(e)
				if constant {
					all = append(all, text)
				}
				return !constant
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func textOf(e ast.Expr) (text string, constant bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, isLeft := textOf(e.X)
		right, isRight := textOf(e.Y)
		if e.Op != token.ADD || !isLeft && !isRight {
			return "", false
		}
		if !isLeft {
			left = "\x00"
		}
		if !isRight {
			right = "\x00"
		}
		return left + right, true
	}
	return "", false
}

// TestQuotedMessages looks in the code for every message that is the heading
// of an entry in docs/troubleshooting.md: `…` stands for what varies. Those
// under "Envoy's own words" are not ours; e2e/guide looks for them in Envoy.
func TestQuotedMessages(t *testing.T) {
	said := strings.Join(append(sources(t, "internal", "cmd"),
		// grpc-go's and Go's words that pass through ours.
		"transport: authentication handshake failed", "x509: certificate signed by unknown authority", "x509: certificate is valid for", "connection refused",
		"bind: address already in use", "first record does not look like a TLS handshake"), "\x01")
	verb := regexp.MustCompile(`%(?:\[\d\])?[-+#.0-9]*[a-zA-Z]`)
	said = verb.ReplaceAllString(said, "\x00")
	headings := 0
	ours, _, _ := strings.Cut(readPage(t, "troubleshooting.md"), "## Envoy's own words")
	for line := range strings.Lines(ours) {
		if !strings.HasPrefix(line, "### ") {
			continue
		}
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			headings++
			for part := range strings.SplitSeq(quoted[1], "…") {
				if part = strings.TrimSpace(part); !strings.Contains(said, part) {
					t.Errorf("docs/troubleshooting.md quotes %q; nothing in the code says %q", quoted[1], part)
				}
			}
		}
	}
	if headings < 30 {
		t.Errorf("docs/troubleshooting.md explains %d messages only", headings)
	}
}

// TestOperatorReference compares the table of docs/reference/operator-api.md
// with the calls that route operations.
func TestOperatorReference(t *testing.T) {
	var routed []string
	err := filepath.WalkDir(repository+"/internal", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "HandleOperator" {
				return true
			}
			method := call.Args[0].(*ast.SelectorExpr).Sel.Name
			path, _ := textOf(call.Args[1])
			action, _ := textOf(call.Args[2])
			routed = append(routed, strings.ToUpper(strings.TrimPrefix(method, "Method"))+" "+path+" fairlead:"+action)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, row := range tableRows(readPage(t, "reference/operator-api.md")) {
		if call := strings.Trim(row[0], "`"); len(row) > 1 && strings.Contains(call, " /fairlead/v1/") {
			described = append(described, call+" "+strings.Trim(row[1], "`"))
		}
	}
	slices.Sort(routed)
	slices.Sort(described)
	if diff := gocmp.Diff(routed, described); diff != "" || len(routed) == 0 {
		t.Errorf("docs/reference/operator-api.md is not what is routed (-code +page):\n%s", diff)
	}
}

// TestMetricsReference compares docs/reference/metrics.md with what the server
// registers, and what it registers with all names in the code.
func TestMetricsReference(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := xds.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.NewACMMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := awsacm.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	measured(http.NotFoundHandler(), registry)
	described := make(chan *prometheus.Desc, 100)
	registry.Describe(described)
	close(described)
	want := map[string]string{}
	for d := range described {
		parts := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch(d.String())
		want[parts[1]] = strings.ReplaceAll(parts[2], ",", ", ")
	}
	for _, text := range sources(t, "internal", "cmd") {
		if regexp.MustCompile(`^fairlead_[a-z]+_[a-z_]+$`).MatchString(text) && text != "fairlead_agent" {
			if _, ok := want[text]; !ok {
				t.Errorf("the metric %s is in the code; this test does not know who registers it", text)
			}
		}
	}
	got := map[string]string{}
	for _, row := range tableRows(readPage(t, "reference/metrics.md")) {
		if name := strings.Trim(row[0], "`"); strings.HasPrefix(name, "fairlead_") {
			got[name] = strings.ReplaceAll(row[2], "`", "")
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("docs/reference/metrics.md is not what the server registers: names and labels (-server +page):\n%s", diff)
	}
}

// agentVariable is a row of docs/reference/agent.md: its last column says what
// becomes of a bad value.
type agentVariable struct{ name, preset, meaning, origin, bad string }

func agentVariables(t *testing.T) []agentVariable {
	t.Helper()
	var all []agentVariable
	for _, row := range tableRows(readPage(t, "reference/agent.md")) {
		if len(row) == 5 && strings.HasPrefix(row[0], "`") {
			all = append(all, agentVariable{strings.Trim(row[0], "`"), row[1], row[2], row[3], row[4]})
		}
	}
	return all
}

// needed is the least that an agent must be told.
var needed = map[string]string{
	"APPMESH_RESOURCE_ARN": "mesh/m/virtualNode/n", "APPMESH_XDS_ENDPOINT": "127.0.0.1:9481", "ENVOY_BIN": "/bin/sh", "HOME": "/home/me",
}

func agentConfig(variables map[string]string) (agent.Config, error) {
	return agent.ConfigFrom(func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	})
}

func with(name, value string, more ...string) map[string]string {
	variables := map[string]string{name: value}
	for key, value := range needed {
		if _, ok := variables[key]; !ok {
			variables[key] = value
		}
	}
	for _, key := range more {
		if key != name {
			variables[key] = "1"
		}
	}
	return variables
}

// TestAgentReference compares the variables of docs/reference/agent.md with
// those that the code names, and tries the default of each and a bad value.
func TestAgentReference(t *testing.T) {
	variable := regexp.MustCompile(`^([A-Z][A-Z0-9]*(_[A-Z0-9]+)+|HOME)$`)
	states := []string{"NOT_READY", "NOT_CONNECTED"} // of /status
	byAWS := []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"}
	code := map[string]bool{}
	for _, text := range sources(t, "internal/agent") {
		if variable.MatchString(text) && !slices.Contains(states, text) && !slices.Contains(byAWS, text) {
			code[text] = true
		}
	}
	page := map[string]bool{}
	switches := []string{"ENABLE_ENVOY_DATADOG_TRACING", "ENABLE_ENVOY_DOG_STATSD"}
	for _, v := range agentVariables(t) {
		page[v.name] = true
		on := switches
		if strings.Contains(v.name, "JAEGER") {
			on = []string{"ENABLE_ENVOY_JAEGER_TRACING"}
		}
		if v.origin != "App Mesh" && v.origin != "new" && v.origin != "system" {
			t.Errorf("%s comes from %q, which is neither App Mesh, new nor system", v.name, v.origin)
		}
		tryDefault(t, v, on)
		tryBad(t, v, on)
	}
	if diff := gocmp.Diff(code, page); diff != "" {
		t.Errorf("docs/reference/agent.md has other variables than the agent (-code +page):\n%s", diff)
	}
}

func tryDefault(t *testing.T, v agentVariable, on []string) {
	t.Helper()
	if !strings.HasPrefix(v.preset, "`") || needed[v.name] != "" {
		return
	}
	unset, err := agentConfig(with("", "", on...))
	if err != nil {
		t.Fatal(err)
	}
	set, err := agentConfig(with(v.name, strings.Trim(v.preset, "`"), on...))
	if err != nil {
		t.Errorf("%s=%s: %v", v.name, v.preset, err)
	}
	if diff := gocmp.Diff(unset, set, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" && !slices.Contains(on, v.name) {
		t.Errorf("the default of %s is not %s (-unset +set):\n%s", v.name, v.preset, diff)
	}
}

func tryBad(t *testing.T, v agentVariable, on []string) {
	t.Helper()
	bad, err := agentConfig(with(v.name, "no:such/thing ,=", on...))
	warned := slices.ContainsFunc(bad.Warnings, func(w string) bool { return strings.HasPrefix(w, v.name+": ") })
	refused := err != nil && strings.Contains("\n"+err.Error(), "\n"+v.name+": ")
	found := "taken as it is"
	switch {
	case refused:
		found = "refused"
	case warned:
		found = "warning"
	}
	if found != v.bad {
		t.Errorf("%s: a bad value is %s, the page says %s (%v, %v)", v.name, found, v.bad, err, bad.Warnings)
	}
}

// TestStatusReference compares the names of errors in
// docs/reference/statuses.md with those in the code; exceptions of services
// that are not mounted are not there.
func TestStatusReference(t *testing.T) {
	exception := regexp.MustCompile(`^[A-Z][A-Za-z]+(Exception|Failure)$`)
	code := map[string]bool{}
	for _, text := range sources(t, "internal/awsapi", "internal/server", "internal/pki", "api/appmesh", "api/acm", "api/acmpca") {
		if exception.MatchString(text) {
			code[text] = true
		}
	}
	page := map[string]bool{}
	for _, row := range tableRows(readPage(t, "reference/statuses.md")) {
		if name := strings.Trim(row[0], "`"); exception.MatchString(name) {
			if page[name] {
				t.Errorf("docs/reference/statuses.md has %s twice", name)
			}
			page[name] = true
		}
	}
	if diff := gocmp.Diff(code, page); diff != "" {
		t.Errorf("docs/reference/statuses.md has other errors than the code (-code +page):\n%s", diff)
	}
}

// TestHelpNamesEveryCommand: a command says what it is, and does something.
func TestHelpNamesEveryCommand(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s does not say what it is", cmd.CommandPath())
		}
		if cmd.RunE == nil && cmd.Run == nil {
			t.Errorf("%s does nothing", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	root := rootCommand()
	root.SetContext(context.Background())
	visit(root)
}
