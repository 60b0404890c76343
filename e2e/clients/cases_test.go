// Package clients_test runs one suite of cases, testdata/cases.txt, through the
// AWS clients that people have: each must see exactly what the file says, and
// so all see the same. It follows facts/appmesh-api.md A.
package clients_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

const casesFile = "testdata/cases.txt"

// longName is as long as a name may be.
var longName = strings.Repeat("n", 255)

// step is one call of the suite and what every client must see.
type step struct {
	line      int    // where the request begins
	text      string // what the file has before the answer, comments too
	operation string
	who       string // of the keys of a run; empty: the root key
	pageSize  int
	presign   bool
	input     string
	want      string
}

// A request: CreateMesh as proxy {…}, ListMeshes in pages of 2 {…},
// DescribeMesh presigned {…}.
var requestLine = regexp.MustCompile(`^([A-Z]\w+)(?: as (\w+))?(?: in pages of (\d+))?( presigned)? (\{.*)$`)

// readCases reads the suite and what comes after its last answer.
func readCases(t *testing.T) (steps []step, rest string) {
	t.Helper()
	content, err := os.ReadFile(casesFile)
	if err != nil {
		t.Fatal(err)
	}
	var s step
	line := 0
	finish := func() {
		if s.operation != "" {
			steps = append(steps, s)
			s = step{}
		}
	}
	for text := range strings.Lines(string(content)) {
		line++
		if want, ok := strings.CutPrefix(text, "= "); ok && s.operation != "" && s.want == "" {
			s.want = strings.TrimSuffix(want, "\n")
			finish()
			continue
		}
		if m := requestLine.FindStringSubmatch(strings.TrimSuffix(text, "\n")); m != nil {
			finish()
			size, _ := strconv.Atoi(m[3]) // no digits: 0
			s.line, s.operation, s.who, s.pageSize, s.presign, s.input = line, m[1], m[2], size, m[4] != "", m[5]
		} else if s.operation != "" && strings.HasPrefix(text, "\t") {
			s.input += text
		} else if finish(); strings.TrimSpace(text) != "" && !strings.HasPrefix(text, "#") {
			t.Fatalf("%s:%d: neither comment, request nor answer: %s", casesFile, line, text)
		}
		s.text += text
	}
	finish()
	return steps, s.text
}

// run is the suite going through one client, against a server of its own.
type run struct {
	server    *meshtest.Server
	drive     driver
	keys      map[string]call // what a who adds to a call
	began     time.Time
	nextToken string
	uids      map[string]int     // in order of appearance
	created   map[string]float64 // by uid: it must not change
}

func newRun(t *testing.T, start func(*testing.T, *meshtest.Server) driver) *run {
	t.Helper()
	s := meshtest.StartServer(t, meshtest.ServerOptions{Args: []string{"--quota", "virtual-gateways-per-mesh=3"}})
	root := s.RootKey(t)
	r := &run{server: s, began: time.Now(), uids: map[string]int{}, created: map[string]float64{}}
	r.keys = map[string]call{
		"":          {Key: root.ID, Secret: root.Secret, Region: meshtest.Region},
		"forger":    {Key: root.ID, Secret: "not the secret of this key", Region: meshtest.Region},
		"nobody":    {Key: "AKIDOESNOTEXIST00000", Secret: "secret", Region: meshtest.Region},
		"anonymous": {Key: root.ID, Secret: root.Secret, Region: meshtest.Region, Unsigned: true},
		"elsewhere": {Key: root.ID, Secret: root.Secret, Region: "eu-west-1"},
	}
	r.drive = start(t, s)
	return r
}

// do makes the call of a step and renders what the client saw.
func (r *run) do(t *testing.T, s step) (string, error) {
	if s.who == "proxy" && r.keys["proxy"].Key == "" {
		key := r.server.ProxyCredentials(t, "mesh/shop/virtualNode/blue")
		r.keys["proxy"] = call{Key: key.ID, Secret: key.Secret, Region: meshtest.Region}
	}
	c, ok := r.keys[s.who]
	if !ok {
		return "", fmt.Errorf("nobody is called %s", s.who)
	}
	c.Operation, c.PageSize, c.Presign, c.Input = s.operation, s.pageSize, s.presign, r.fill(s.input)
	if !json.Valid(c.Input) {
		return "", fmt.Errorf("not JSON: %s", c.Input)
	}
	got, err := r.drive(t.Context(), c)
	if err != nil {
		return "", err
	}
	return r.see(t, c, got)
}

// fill puts the last token and what is too long to write down into a request.
func (r *run) fill(input string) json.RawMessage {
	var fifty []string
	for i := range 50 {
		fifty = append(fifty, fmt.Sprintf(`{"key":"k%02d","value":"v"}`, i))
	}
	return json.RawMessage(strings.NewReplacer(
		"$nextToken", r.nextToken,
		"$fiftyTags", "["+strings.Join(fifty, ",")+"]",
		"$name255", longName,
		"$name256", longName+"n",
	).Replace(input))
}
