package awsapi

import (
	stdxml "encoding/xml"
	"strings"
	"testing"
	"time"

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

// FuzzForm: a form of the query protocol is refused with an exception or finds
// an action, whose parameters were all in it once; a query never means what a
// form would not.
func FuzzForm(f *testing.F) {
	mux := atSigning(nil)
	for _, seed := range []string{"Action=GetCallerIdentity&Version=2011-06-15", "Version=2011-06-15&Action=GetCaller%49dentity&Marker=a+b%2B", "Action=&Action=", "a=b&&c", "=", "%", "Action=GetCallerIdentity&Version=2011-06-15&%ff=1", "Action=GetCallerIdentity&Version=2011-06-15&=" + strings.Repeat("&a", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r, form, err := mux.findAction("POST", verified{body: []byte(body)})
		if err != nil {
			if e, ok := err.(*api.Exception); !ok || e.Status != 400 || e.Message == "" || len(e.Message) > 4096 {
				t.Fatalf("refused with %v", err)
			}
			_, _, xml := formQuery.error(err.(*api.Exception), "id")
			if e := new(queryFault); stdxml.Unmarshal(xml, e) != nil || e.Code == "" {
				t.Fatalf("no XML: %s", xml)
			}
			return
		}
		if r.action != form["Action"] || form["Version"] != STSVersion || len(form) > maxParams {
			t.Fatalf("%q finds %s with %v", body, r.action, form)
		}
		if strings.Contains(body, "+") {
			return
		}
		query, err := parseQuery(body)
		if err != nil {
			t.Fatalf("a query is refused: %v", err)
		}
		if _, again, err := mux.findAction("GET", verified{query: query}); err != nil || !cmp.Equal(form, again) {
			t.Fatalf("as a query: %v, %v; as a form: %v", again, err, form)
		}
	})
}

// FuzzTarget: a target is refused or comes apart so that it can be put together
// again.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"CertificateManager.ListCertificates", ".", "a.b.c", "a", "Route53AutoNaming_v20170314.ListNamespaces", "a b.c", "\xff.\x00"} {
		f.Add(seed, "/service/"+strings.Replace(seed, ".", "/operation/", 1))
		f.Add(seed, "/")
	}
	f.Fuzz(func(t *testing.T, header, path string) {
		if service, operation, ok := parseTarget(jsonRPC, "/", []string{header}); ok && (service+"."+operation != header || !isTargetName(service)) {
			t.Fatalf("%q is read as %q and %q", header, service, operation)
		}
		if service, operation, ok := parseTarget(rpcCBOR, "/"+path, nil); ok && !strings.HasSuffix("/"+path, "/service/"+service+"/operation/"+operation) {
			t.Fatalf("%q is read as %q and %q", path, service, operation)
		}
		if _, _, ok := parseTarget(rpcCBOR, "/"+path, []string{header}); ok {
			t.Fatal("a CBOR request with a target")
		}
	})
}

// FuzzPresigned: the query of a presigned request is refused with an exception
// or has one of each parameter, within its bounds.
func FuzzPresigned(f *testing.F) {
	good := "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Fus-east-1%2Fappmesh%2Faws4_request&X-Amz-Date=20261123T181834Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=" + strings.Repeat("0a", 32)
	for _, seed := range []string{good, good + "&X-Amz-Security-Token=t", good + "&X-Amz-Expires=1", strings.Replace(good, "=60", "=604801", 1), strings.Replace(good, "SHA256", "SHA1", 1), "X-Amz-Signature", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := parseQuery(raw)
		if err != nil {
			return
		}
		s, err := parsePresigned(query)
		if err != nil {
			if e, ok := err.(*api.Exception); !ok || e.Status != 403 || e.Message == "" || len(e.Message) > 4096 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if !s.presigned || s.expires < time.Second || s.expires > maxExpires || s.time.Format("20060102") != s.date || len(s.value) != 64 || s.hasToken != strings.Contains(canonicalQuery(query), presignToken+"=") {
			t.Fatalf("%q is read as %+v", raw, s)
		}
	})
}
