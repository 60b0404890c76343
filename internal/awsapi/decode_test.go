package awsapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
)

// node wraps a spec in the smallest body of CreateVirtualNode.
func node(spec string) string { return `{"virtualNodeName":"n","spec":` + spec + `}` }

// listener wraps the members of one listener beside its port.
func listener(members string) string {
	return node(`{"listeners":[{"portMapping":{"port":80,"protocol":"http"}` + members + `}]}`)
}

// wide is an object of n members.
func wide(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"zz%d":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestDecodeValid(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"good", node(`{}`), ""},
		{"null is absent", node(`{"listeners":null,"logging":null,"backends":[]}`), ""},
		{"zero where zero is legal", listener(`,"timeout":{"http":{"idle":{"value":0,"unit":"ms"}}}`), ""},
		{"escaped name", `{"virtual\u004eodeName":"n","spec":{}}`, ""},

		{"mistyped tls", listener(`,"tlss":{"mode":"STRICT"}`), "spec.listeners[0].tlss is not a known field; did you mean tls?"},
		{"wrong case", listener(`,"TLS":{}`), "spec.listeners[0].TLS is not a known field; did you mean tls?"},
		{"nothing like it", node(`{"zzz":1}`), "spec.zzz is not a known field"},
		{"a member of the path", `{"meshName":"m","virtualNodeName":"n","spec":{}}`, "meshName is not a known field of the body: it is in the path"},
		{"a member of the query", `{"meshOwner":"m","virtualNodeName":"n","spec":{}}`, "meshOwner is not a known field of the body: it is a query parameter"},
		{"given twice", `{"virtualNodeName":"n","spec":{},"spec":{}}`, "spec is given twice"},
		{"given twice, deep", node(`{"listeners":[{"portMapping":{"port":1,"port":2}}]}`), "spec.listeners[0].portMapping.port is given twice"},
		{"given twice, escaped", `{"virtualNodeName":"n","virtualNode\u004eame":"m","spec":{}}`, "virtualNodeName is given twice"},
		{"given twice, unknown", node(`{"x":{"y":1,"y":2}}`), "spec.x.y is given twice"},

		{"empty", ``, "the request body is empty"},
		{"space", ` `, "the request body is empty"},
		{"cut off", `{"virtualNodeName":"n"`, "the request body is not valid JSON: unexpected EOF"},
		{"trailing document", node(`{}`) + `{}`, "the request body has something behind the end of its JSON document"},
		{"trailing comma", node(`{},`), "the request body is not valid JSON: "},
		{"comment", node(`{} /* x */`), "the request body is not valid JSON: "},
		{"single quotes", `{'spec':{}}`, "the request body is not valid JSON: "},
		{"byte order mark", "\ufeff" + node(`{}`), "the request body is not valid JSON: "},
		{"bad UTF-8", "{\"virtualNodeName\":\"\xff\",\"spec\":{}}", "the request body is not valid JSON: invalid UTF-8 within virtualNodeName"},
		{"lone surrogate", `{"virtualNodeName":"\ud800","spec":{}}`, "the request body is not valid JSON: "},
		{"NUL in a string", `{"virtualNodeName":"a\u0000","spec":{}}`, "virtualNodeName must not contain a NUL character"},
		{"NaN", `{"virtualNodeName":NaN}`, "the request body is not valid JSON: "},
		{"too deep", strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat(`}`, 65), "the request body is nested more than 64 levels deep"},
		{"deep enough", strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat(`}`, 64), "3 validation errors detected: a is not a known field; spec is required; virtualNodeName is required"},
		{"too wide", `{"spec":{` + strings.Repeat(`"a":[],`, 1001) + `"b":1}}`, "spec.a is given twice"},
		{"too wide, names of their own", wide(1001), "the request body has an object of more than 1000 members"},
		{"wide", wide(1000), "1002 validation errors detected: "},
		{"a list", `[]`, "the request body must be a JSON object, not a list"},
		{"null", `null`, "the request body must be a JSON object, not null"},

		{"string for a structure", node(`{"listeners":["x"]}`), `spec.listeners[0] must be an object, not a string "x"`},
		{"structure for a list", node(`{"listeners":{}}`), "spec.listeners must be a list, not an object"},
		{"number for a string", `{"virtualNodeName":7,"spec":{}}`, "virtualNodeName must be a string, not a number 7"},
		{"string for a number", listener(`,"healthCheck":{"healthyThreshold":"2","intervalMillis":5000,"protocol":"http","timeoutMillis":2000,"unhealthyThreshold":2}`), `spec.listeners[0].healthCheck.healthyThreshold must be an integer, not a string "2"`},
		{"fraction", listener(`,"timeout":{"http":{"idle":{"value":1.5}}}`), "spec.listeners[0].timeout.http.idle.value must be an integer, not 1.5"},
		{"exponent", listener(`,"timeout":{"http":{"idle":{"value":1e3}}}`), "spec.listeners[0].timeout.http.idle.value must be an integer, not 1e3"},
		{"too big", listener(`,"timeout":{"http":{"idle":{"value":9223372036854775808}}}`), "spec.listeners[0].timeout.http.idle.value does not fit in 64 bits: 9223372036854775808"},
		{"string for a boolean", node(`{"backendDefaults":{"clientPolicy":{"tls":{"enforce":"false","validation":{"trust":{"sds":{"secretName":"s"}}}}}}}`), `spec.backendDefaults.clientPolicy.tls.enforce must be true or false, not a string "false"`},
		{"null in a list", node(`{"backends":[null]}`), "spec.backends[0] must not be null"},

		{"required", `{"spec":{}}`, "virtualNodeName is required"},
		{"required, null", `{"virtualNodeName":null,"spec":{}}`, "virtualNodeName is required"},
		{"required, empty", `{"virtualNodeName":"","spec":{}}`, "virtualNodeName is required"},
		{"required, zero", node(`{"listeners":[{"portMapping":{"port":0,"protocol":"http"}}]}`), "spec.listeners[0].portMapping.port is required"},
		{"required structure", node(`{"listeners":[{}]}`), "spec.listeners[0].portMapping is required"},
		{"too small", node(`{"listeners":[{"portMapping":{"port":-1,"protocol":"http"}}]}`), "spec.listeners[0].portMapping.port must be at least 1, not -1"},
		{"too large", node(`{"listeners":[{"portMapping":{"port":65536,"protocol":"http"}}]}`), "spec.listeners[0].portMapping.port must be at most 65535, not 65536"},
		{"characters are counted, not bytes", `{"virtualNodeName":"` + strings.Repeat("é", 255) + `","spec":{}}`, ""},
		{"too long", `{"virtualNodeName":"` + strings.Repeat("é", 256) + `","spec":{}}`, "virtualNodeName must be at most 255 characters long, not 256"},
		{"not of the enumeration", node(`{"listeners":[{"portMapping":{"port":1,"protocol":"HTTP"}}]}`), `spec.listeners[0].portMapping.protocol must be one of http, tcp, http2, grpc, not "HTTP"`},
		{"pattern", node(`{"serviceDiscovery":{"awsCloudMap":{"namespaceName":"a","serviceName":"b","attributes":[{"key":"a b","value":"c"}]}}}`), `spec.serviceDiscovery.awsCloudMap.attributes[0].key must match the pattern ^[a-zA-Z0-9!-~]+$, not be "a b"`},
		{"union, none", node(`{"serviceDiscovery":{}}`), "spec.serviceDiscovery must have exactly one of awsCloudMap, dns, not none"},
		{"union, null", node(`{"serviceDiscovery":{"dns":null}}`), "spec.serviceDiscovery must have exactly one of awsCloudMap, dns, not none"},
		{"union, both", node(`{"serviceDiscovery":{"dns":{"hostname":"x"},"awsCloudMap":{"namespaceName":"a","serviceName":"b"}}}`), "spec.serviceDiscovery must have exactly one of awsCloudMap, dns, not awsCloudMap and dns"},
		{"union, misspelt", node(`{"serviceDiscovery":{"dsn":{"hostname":"x"}}}`), "spec.serviceDiscovery.dsn is not a known field; did you mean dns?"},
		{"items of a list", node(`{"backendDefaults":{"clientPolicy":{"tls":{"ports":[1,0,65536],"validation":{"trust":{"sds":{"secretName":"s"}}}}}}}`), "2 validation errors detected: spec.backendDefaults.clientPolicy.tls.ports[1] must be at least 1, not 0; spec.backendDefaults.clientPolicy.tls.ports[2] must be at most 65535, not 65536"},
		{"length of a list", `{"virtualNodeName":"n","spec":{},"tags":[` + strings.Repeat(`{"key":"k","value":""},`, 50) + `{"key":"k","value":""}]}`, "tags must have at most 50 items, not 51"},
		{"empty value of a tag is legal, none is not", `{"virtualNodeName":"n","spec":{},"tags":[{"key":"a","value":""},{"key":"b"}]}`, "tags[1].value is required"},

		{"all faults at once", `{"x":1,"spec":{"listeners":[{"portMapping":{"port":0}},{"portMapping":{"port":"a","protocol":"z"}}]}}`, `6 validation errors detected: x is not a known field; spec.listeners[1].portMapping.port must be an integer, not a string "a"; spec.listeners[0].portMapping.port is required; spec.listeners[0].portMapping.protocol is required; spec.listeners[1].portMapping.protocol must be one of http, tcp, http2, grpc, not "z"; virtualNodeName is required`},
		{"no more than 20 of them", node(`{"listeners":[` + strings.Repeat(`{"a":1},`, 29) + `{"a":1}]}`), "60 validation errors detected: spec.listeners[0].a is not a known field; "},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := &appmesh.CreateVirtualNodeInput{MeshName: "m"}
			got := ""
			if err := DecodeValid([]byte(test.body), in); err != nil {
				got = err.Error()
			}
			open := strings.HasSuffix(test.want, ": ") || strings.HasSuffix(test.want, "; ") || strings.HasPrefix(test.want, "the request body is not valid JSON")
			if got != test.want && (!open || !strings.HasPrefix(got, test.want)) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if n := strings.Count(got, "; spec"); n >= maxFaults {
				t.Errorf("%d faults in one message", n)
			}
		})
	}
}

// TestFaultsCarryPathAndValue: for those who want more than a sentence.
func TestFaultsCarryPathAndValue(t *testing.T) {
	port, name := int64(70000), strings.Repeat("x", 300)
	got := Validate(&appmesh.ListVirtualNodesInput{MeshName: name, Limit: &port})
	want := Faults{
		{Path: "limit", Value: "70000", Message: "must be at most 100, not 70000"},
		{Path: "meshName", Value: strings.Repeat("x", 80) + "…", Message: "must be at most 255 characters long, not 300"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHostileDocumentsCostLittle: a document of faults is kept within bounds.
func TestHostileDocumentsCostLittle(t *testing.T) {
	body := `{"spec":{"backends":[` + strings.Repeat(`null,`, 100000) + `null]}}`
	err := Decode([]byte(body), &appmesh.CreateVirtualNodeInput{})
	faults, ok := err.(Faults)
	if !ok || len(faults) != keptFaults || len(faults.Error()) > 4096 {
		t.Errorf("%d faults, a message of %d bytes", len(faults), len(err.Error()))
	}
}

// TestPlans: the tags of all inputs can be read.
func TestPlans(t *testing.T) {
	if len(appmesh.Operations) != 38 {
		t.Errorf("%d operations", len(appmesh.Operations))
	}
	atSigning(nil) // Mount reads every plan and panics on a bad one
}

func TestQuery(t *testing.T) {
	for _, test := range []struct {
		raw  string
		want []param
		err  bool
	}{
		{"", nil, false},
		{"a=b&c", []param{{"a", "b"}, {"c", ""}}, false},
		{"a=b+c%20d%2b", []param{{"a", "b+c d+"}}, false},
		{"a==", []param{{"a", "="}}, false},
		{"a=b&&c=d", nil, true},
		{"=b", nil, true},
		{"a=%", nil, true},
		{"a=%2", nil, true},
		{"a=%zz", nil, true},
	} {
		got, err := parseQuery(test.raw)
		if test.err {
			got = nil
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(param{})); diff != "" || (err != nil) != test.err {
			t.Errorf("%q: %v (-want +got):\n%s", test.raw, err, diff)
		}
	}
}
