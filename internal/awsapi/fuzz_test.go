package awsapi

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
)

// FuzzDecode: whatever the bytes, the strict decoder refuses or reads them; what
// it accepts is what the JSON library reads too, and survives a round trip.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		nodeBody, listener(`,"tlss":{"mode":"STRICT"}`), listener(`,"tls":{"mode":"STRICT","certificate":{"file":{"certificateChain":"/a","privateKey":"/b"}}}`),
		node(`{"listeners":null,"backends":[{"virtualService":{"virtualServiceName":"s"}}]}`), node(`{"a":{"a":1,"a":2}}`),
		node(`{"listeners":[{"portMapping":{"port":1e3,"protocol":"http"}}]}`), `{"spec":{},"spec":{}}`, "\ufeff{}", `[]`, `{"tags":[{"key":"\u0000"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in appmesh.CreateVirtualNodeInput
		if err := Decode(data, &in); err != nil {
			if err.Error() == "" || len(err.Error()) > 16<<10 {
				t.Fatalf("a message of %d bytes", len(err.Error()))
			}
			_ = DecodeValid(data, new(appmesh.CreateVirtualNodeInput))
			return
		}
		var other appmesh.CreateVirtualNodeInput
		if err := json.Unmarshal(data, &other, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("accepted what the JSON library refuses: %v\n%s", err, data)
		}
		if diff := cmp.Diff(other, in); diff != "" {
			t.Fatalf("read differently (-library +ours):\n%s", diff)
		}
		written, err := encode(&in)
		if err != nil {
			t.Fatal(err)
		}
		var again appmesh.CreateVirtualNodeInput
		if err := Decode(written, &again); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if diff := cmp.Diff(in, again); diff != "" {
			t.Fatalf("changed by a round trip (-before +after):\n%s", diff)
		}
		Validate(&in)
	})
}

// FuzzSigV4Header: an Authorization header is refused with an exception or comes
// apart so that it can be put together again.
func FuzzSigV4Header(f *testing.F) {
	good := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/appmesh/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=" + strings.Repeat("0a", 32)
	for _, seed := range []string{good, strings.ReplaceAll(good, ", ", ","), good + ",", good + ", Signature=1", strings.Replace(good, "host", "Host", 1), "AWS4-HMAC-SHA256 ", "Basic x", strings.Replace(good, "/aws4", "//aws4", 1)} {
		f.Add(seed, "20261123T181834Z")
	}
	f.Fuzz(func(t *testing.T, header, date string) {
		s, err := parseAuthorization(header)
		if err == nil {
			err = s.parseTime(date)
		}
		if err != nil {
			if e, ok := err.(*api.Exception); !ok || e.Status != 403 || e.Message == "" || len(e.Message) > 4096 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again := algorithm + " Credential=" + s.keyID + "/" + s.scope() + ", SignedHeaders=" + strings.Join(s.signedHeaders, ";") + ", Signature=" + s.value
		if fold(again) != fold(header) {
			t.Fatalf("read %q as %q", header, again)
		}
		if got := s.time.Format(timeFormat); got != date || got[:8] != s.date {
			t.Fatalf("read %q as %s", date, got)
		}
	})
}

// fold takes out what a header may vary in: spaces and the order of its parts.
func fold(header string) string {
	rest := strings.TrimPrefix(strings.ReplaceAll(header, " ", ""), algorithm)
	parts := map[string]string{}
	for piece := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(piece, "=")
		parts[name] = value
	}
	return parts["Credential"] + " " + parts["SignedHeaders"] + " " + parts["Signature"]
}
