package awsapi

import (
	"bufio"
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
)

// pythonReads answers each line, a document in base64, with what botocore's
// parser makes of it.
const pythonReads = `
import base64, json, sys
for line in sys.stdin:
    try:
        print(json.dumps(json.loads(base64.b64decode(line).decode("utf-8"))))
    except (ValueError, RecursionError):
        print("refused")
`

// python reads many documents in one process; "" is one that it refuses.
func python(t *testing.T, documents []string) []string {
	t.Helper()
	var in bytes.Buffer
	for _, d := range documents {
		in.WriteString(base64.StdEncoding.EncodeToString([]byte(d)) + "\n")
	}
	cmd := exec.CommandContext(t.Context(), venv+"python", "-c", pythonReads)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python (make tools installs it): %v", err)
	}
	var read []string
	lines := bufio.NewReader(bytes.NewReader(out))
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		read = append(read, strings.TrimPrefix(strings.TrimSpace(line), "refused"))
	}
	if len(read) != len(documents) {
		t.Fatalf("python has read %d of %d documents", len(read), len(documents))
	}
	return read
}

// meaning is a document as Go's own parser reads it, without what counts as
// absent: null everywhere.
func meaning(document string) (any, error) {
	d := stdjson.NewDecoder(strings.NewReader(document))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return withoutNulls(v), nil
}

func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if member == nil {
				delete(v, name)
			} else {
				v[name] = withoutNulls(member)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	case stdjson.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n // -0 is 0
		}
	}
	return v
}

// spec is a document that is good, and large enough to be spoilt in many ways.
const differentialSpec = `{"virtualNodeName":"n\u00e9 \ud83d\ude00","clientToken":"t","spec":{"backends":[],"listeners":[{"portMapping":{"port":8080,"protocol":"http"},"timeout":{"http":{"idle":{"value":0,"unit":"ms"}}},"healthCheck":{"healthyThreshold":2,"intervalMillis":5000,"path":"/\\x\"","protocol":"http","timeoutMillis":2000,"unhealthyThreshold":3}}],"serviceDiscovery":{"dns":{"hostname":"a.example"}},"logging":null},"tags":[{"key":"k","value":""}]}`

// spoilt are documents that some parser reads in a way of its own.
func spoilt() []string {
	port := func(n string) string {
		return `{"virtualNodeName":"n","spec":{"listeners":[{"portMapping":{"port":` + n + `,"protocol":"http"}}]}}`
	}
	name := func(s string) string { return `{"virtualNodeName":` + s + `,"spec":{}}` }
	deep := func(n int) string { return strings.Repeat(`{"spec":`, n) + "1" + strings.Repeat("}", n) }
	all := []string{
		differentialSpec, "", " ", "null", "[]", "1", `"x"`, "{}", "{}{}", "{} {}", "{}x", "{},", "{}\x00", "\x00{}", "\ufeff{}", "{}\ufeff", "\u00a0{}", "{}\u2028", "{}\v", "{}\f", "{ }\n\t\r ",
		`{"virtualNodeName":"a","virtualNodeName":"b","spec":{}}`, `{"virtualNodeName":"a","virtualNode\u004eame":"b","spec":{}}`, `{"virtualNodeName":"a","VirtualNodeName":"b","spec":{}}`,
		`{"VIRTUALNODENAME":"a","spec":{}}`, `{"virtualNodeName":"a","spec":{},"Spec":{"listeners":[]}}`, `{"virtualNodeName":"a","\u017fpec":{}}`, `{"virtualNodeName":"a","spec":{},"spec":null}`, `{"virtualNodeName":"a","spec":null}`,
		`{"virtualNodeName":"a","spec":{},"__proto__":{}}`, `{"virtualNodeName":"a","spec":{},"":1}`, `{"virtualNodeName":"a","spec":{},}`, `{,"virtualNodeName":"a"}`, `{"virtualNodeName" "a"}`, `{virtualNodeName:"a"}`,
		`{"virtualNodeName":"a","spec":{}/**/}`, "{\"virtualNodeName\":\"a\",\"spec\":{}//\n}", "#\n{}", `{'virtualNodeName':'a'}`,
		deep(63), deep(64), deep(65), deep(100_000), strings.Repeat("[", 100_000), `{"virtualNodeName":"a","spec":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `}`,
	}
	for _, n := range []string{"1", "-1", "0", "-0", "+1", "01", "1.", ".5", "1.0", "1e0", "1E2", "10e-1", "0x10", "1_000", "0b1", "NaN", "Infinity", "-Infinity", "9007199254740993", "65535", "65536", "9223372036854775807", "9223372036854775808",
		"18446744073709551617", strings.Repeat("9", 5000), "1e400", "-1e-400", `"80"`, "true", "null", "[80]", "\u0661", "８０", "80 80", "80\x00"} {
		all = append(all, port(n))
	}
	for _, s := range []string{`"\u0000"`, `"a\u0000b"`, "\"a\x00b\"", "\"a\nb\"", "\"a\tb\"", "\"\x1f\"", "\"\x7f\"", `"\x41"`, `"\u004"`, `"\U00000041"`, `"\'"`, `"\/"`, `"\a"`, `"\u00e9"`, "\"e\u0301\"", `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\uD83D\uDE00"`,
		`"\ud83d` + "\U0001f600" + `"`, "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\ufffd\"", "\"\ufeff\"", "\"\u2028\"", `"<script>&\u003c"`, `"a`, `a"`, `""`, `"a" "b"`, `nul`, `NULL`, `True`, `undefined`} {
		all = append(all, name(s))
	}
	return all
}

// TestParsersAgree: what two parsers could read in two ways is refused; what is
// accepted, Go's parser and botocore's read as we do (facts/reliability.md F3).
func TestParsersAgree(t *testing.T) {
	documents := spoilt()
	random := rand.New(rand.NewPCG(3, 2026))
	fragments := []string{`"`, `{`, `}`, `[`, `]`, `,`, `:`, ` `, "\n", "\t", `null`, `\u006e`, `\`, `0`, `1`, `-`, `.`, `e1`, `"spec":{},`, `"port":1,`, "\x00", "\xff", "\ufeff", "é", `/**/`, `""`, `{}`, `[]`, `true`}
	for range 12_000 {
		d := []byte(differentialSpec)
		for range 1 + random.IntN(2) {
			at := random.IntN(len(d))
			fragment := fragments[random.IntN(len(fragments))]
			to := min(at+random.IntN(2)*(1+random.IntN(4)), len(d))
			d = fmt.Appendf(nil, "%s%s%s", d[:at], fragment, d[to:])
		}
		documents = append(documents, string(d))
	}
	theirs := python(t, documents)
	accepted := 0
	for i, document := range documents {
		in := &appmesh.CreateVirtualNodeInput{MeshName: "m"}
		if err := DecodeValid([]byte(document), in); err != nil {
			continue
		}
		accepted++
		in.MeshName = ""
		encoded, err := encode(in)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := meaning(string(encoded))
		if err != nil {
			t.Fatalf("what we write is not JSON: %v", err)
		}
		for parser, text := range map[string]string{"Go's parser": document, "Python's parser": theirs[i]} {
			other, err := meaning(text)
			if err != nil {
				t.Errorf("%s refuses what we take: %v\n%q", parser, err, document)
			} else if diff := cmp.Diff(other, ours); diff != "" {
				t.Errorf("%s reads something else (-theirs +ours):\n%s\n%q", parser, diff, document)
			}
		}
	}
	t.Logf("%d of %d documents are accepted", accepted, len(documents))
	if accepted < 200 || accepted > len(documents)/2 {
		t.Errorf("%d of %d documents are accepted: the test does not tell much", accepted, len(documents))
	}
}
