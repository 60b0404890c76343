package awsapi

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/appmesh"
)

// atSigning is a mux whose clock shows the time of signedMessage.
func atSigning(log *slog.Logger) *Mux {
	return newTestMux(Config{Now: func() time.Time { return signedAt }, Log: log})
}

func TestAnswers(t *testing.T) {
	big := func(n int) string { return `{"meshName":"` + strings.Repeat("x", n) + `"}` }
	for _, test := range []struct {
		name, method, target, body string
		status                     int
		want                       string // body of a success, code and part of the message of an error
	}{
		{"bare payload", "GET", "/v20190125/meshes/m", "", 200, `{"meshName":"m","metadata":{"arn":"arn:aws:appmesh:us-east-1:000000000000:mesh/m","createdAt":1606022091.476,"lastUpdatedAt":1606022091.476,"meshOwner":"000000000000","resourceOwner":"000000000000","uid":"00000000-0000-4000-8000-000000000000","version":1},"spec":{}}`},
		{"list", "GET", "/v20190125/meshes", "", 200, `{"meshes":[]}`},
		{"empty output", "PUT", "/v20190125/tag?resourceArn=x", `{"tags":[{"key":"k","value":""}]}`, 200, `{}`},
		{"escaped slash in a label", "GET", "/v20190125/meshes/absent%2F", "", 200, `{"meshName":"absent/",`},
		{"escapes in a query", "GET", "/v20190125/meshes?nextToken=a%20b%2B%26", "", 200, `{"meshes":[],"nextToken":"a b+&"}`},
		{"an empty object as the body of a GET", "GET", "/v20190125/meshes", "{}", 200, `{"meshes":[]}`},
		{"spec echoed as it was sent", "PUT", "/v20190125/meshes/m/virtualNodes", `{"virtualNodeName":"n","clientToken":"t","spec":{"backends":[],"listeners":[{"portMapping":{"port":80,"protocol":"http"},"timeout":{"http":{"idle":{"value":0,"unit":"s"}}}}]}}`, 200,
			`"spec":{"backends":[],"listeners":[{"portMapping":{"port":80,"protocol":"http"},"timeout":{"http":{"idle":{"unit":"s","value":0}}}}]}`},

		{"unknown path", "GET", "/v20190125/mesh", "", 404, "UnknownOperationException: no operation is at /v20190125/mesh"},
		{"trailing slash", "GET", "/v20190125/meshes/", "", 404, "UnknownOperationException"},
		{"root", "GET", "/", "", 404, "UnknownOperationException"},
		{"wrong method", "POST", "/v20190125/meshes", "{}", 405, "MethodNotAllowedException: the method POST is not allowed here: use GET, PUT"},
		{"HEAD", "HEAD", "/v20190125/meshes/m", "", 405, "MethodNotAllowedException: the method HEAD is not allowed here: use DELETE, GET, PUT"},
		{"label that is not UTF-8", "GET", "/v20190125/meshes/%ff", "", 400, "BadRequestException: meshName cannot be read"},
		{"label with a NUL", "GET", "/v20190125/meshes/a%00b", "", 400, "BadRequestException: meshName cannot be read"},
		{"unknown query parameter", "GET", "/v20190125/meshes?limits=1", "", 400, "BadRequestException: limits is not a known query parameter; did you mean limit?"},
		{"query parameter twice", "GET", "/v20190125/meshes?limit=1&limit=2", "", 400, "BadRequestException: limit is given twice"},
		{"limit is no number", "GET", "/v20190125/meshes?limit=1e1", "", 400, `BadRequestException: limit must be an integer, not "1e1"`},
		{"limit out of range", "GET", "/v20190125/meshes?limit=0", "", 400, "BadRequestException: limit must be at least 1, not 0"},
		{"required query parameter", "GET", "/v20190125/tags", "", 400, "BadRequestException: resourceArn is required"},
		{"a body where none belongs", "GET", "/v20190125/meshes", `{"limit":1}`, 400, "BadRequestException: limit is not a known field of the body: it is a query parameter"},
		{"not JSON", "PUT", "/v20190125/meshes", "meshName=m", 400, "BadRequestException: the request body is not valid JSON"},
		{"no body", "PUT", "/v20190125/meshes", "", 400, "BadRequestException: meshName is required"},
		{"body over the limit of an operation", "PUT", "/v20190125/meshes", big(MaxSpecBody), 413, "RequestEntityTooLargeException: the request body is larger than 1048576 bytes"},
		{"body of 10 MB", "PUT", "/v20190125/meshes", big(10 << 20), 413, "RequestEntityTooLargeException: the request body is larger than 4194304 bytes"},
		{"modelled error", "GET", "/v20190125/meshes/absent", "", 404, "NotFoundException: Mesh with name absent is not present for account 000000000000"},
		{"unexpected error", "GET", "/v20190125/meshes/broken", "", 500, "InternalServerErrorException: internal error"},
		{"panic", "DELETE", "/v20190125/meshes/m", "", 500, "InternalServerErrorException: internal error"},

		{"operator action", "POST", "/fairlead/v1/widgets", `{"name":"w"}`, 200, `{"name":"w"}`},
		{"operator label and query", "GET", "/fairlead/v1/widgets/a%2Fb?suffix=c%20d", "", 200, `{"name":"a/bc d"}`},
		{"operator unknown query", "GET", "/fairlead/v1/widgets/a?x=y", "", 400, "BadRequestException: x is not a known query parameter"},
		{"operator faults", "POST", "/fairlead/v1/widgets", `{"nam":"w","size":1.5}`, 400, "BadRequestException: 3 validation errors detected: nam is not a known field; did you mean name?; size must be an integer, not 1.5; name is required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := signedMessage(t, test.method, test.target, test.body).send(t, atSigning(nil))
			got := a.body
			if a.status != 200 {
				got = a.code + ": " + a.message
			}
			if a.status != test.status || !strings.Contains(got, test.want) {
				t.Errorf("got %d %s\nwant %d %s", a.status, got, test.status, test.want)
			}
			if ct := a.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
		})
	}
}

func TestContentIsPlainJSON(t *testing.T) {
	for _, test := range []struct {
		name, header, value string
		status              int
	}{
		{"JSON", "Content-Type", "application/json", 200},
		{"with charset", "Content-Type", "application/json; charset=UTF-8", 200},
		{"AWS JSON", "Content-Type", "application/x-amz-json-1.1", 200},
		{"form", "Content-Type", "application/x-www-form-urlencoded", 415},
		{"another charset", "Content-Type", "application/json; charset=utf-16", 415},
		{"CBOR", "Content-Type", "application/cbor", 415},
		{"gzip", "Content-Encoding", "gzip", 415},
		{"aws-chunked", "Content-Encoding", "aws-chunked", 415},
		{"identity", "Content-Encoding", "identity", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := http.Header{}
			header.Set(test.header, test.value)
			err := checkContent(restJSON, header, []byte("{}"))
			status := 200
			if err != nil {
				status = exceptionOf(nil, err).Status
			}
			if status != test.status {
				t.Errorf("got %d (%v), want %d", status, err, test.status)
			}
		})
	}
}

// TestUnsigned: every route, and none, answers an unsigned request alike.
func TestUnsigned(t *testing.T) {
	targets := map[string]string{"/nowhere": "GET", "/fairlead/v1/widgets": "POST", "*": "OPTIONS", "http://127.0.0.1/v20190125/meshes": "GET"}
	for _, op := range appmesh.Operations {
		targets[strings.NewReplacer("{", "", "}", "").Replace(op.URI)] = op.Method
	}
	for target, method := range targets {
		m := &message{method: method, target: target, headers: [][2]string{{"Host", "127.0.0.1:9480"}}}
		a := m.send(t, atSigning(nil))
		want := codeMissingToken
		if target[0] != '/' {
			want = codeBadRequest
		}
		if a.code != want {
			t.Errorf("%s %s: got %d %s %s", method, target, a.status, a.code, a.message)
		}
	}
}

// TestEveryOperationHasItsRoute: a path made from each template finds it again.
func TestEveryOperationHasItsRoute(t *testing.T) {
	mux := atSigning(nil)
	for _, op := range appmesh.Operations {
		path := strings.NewReplacer("{", "%7B", "}", "").Replace(op.URI)
		r, labels, err := mux.find(op.Method, path)
		if err != nil || r.action != op.Name {
			t.Errorf("%s %s: found %v, %v", op.Method, path, r, err)
			continue
		}
		for name, value := range labels {
			if value != "{"+name {
				t.Errorf("%s: label %s is %q", op.Name, name, value)
			}
		}
	}
}

// TestServiceOfTheScope: a signature for one service does not open another.
func TestServiceOfTheScope(t *testing.T) {
	mux := atSigning(nil)
	mux.HandleOperator(http.MethodGet, "/elsewhere", "Elsewhere", nil) // signedMessage signs for appmesh here
	a := signedMessage(t, "GET", "/elsewhere", "").send(t, mux)
	if a.code != codeBadSignature || a.message != "Credential should be scoped to correct service: 'fairlead'." {
		t.Errorf("a path of another service: %d %s %s", a.status, a.code, a.message)
	}
}

// TestProxyKeyCallsNothing: the key of a proxy is good for its stream alone.
func TestProxyKeyCallsNothing(t *testing.T) {
	a := messageBy(t, proxyCreds, "GET /v20190125/meshes", "").send(t, atSigning(nil))
	want := "User: arn:aws:iam::000000000000:user/proxy/mesh/m/virtualNode/n is not authorized to perform: appmesh:ListMeshes because"
	if a.code != codeAccessDenied || a.status != 403 || !strings.HasPrefix(a.message, want) {
		t.Errorf("got %d %s %s", a.status, a.code, a.message)
	}
}

// TestInternalErrorsAreLogged: with the id that the caller has, and no secrets.
func TestInternalErrorsAreLogged(t *testing.T) {
	var log bytes.Buffer
	mux := atSigning(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for target, cause := range map[string]string{"/v20190125/meshes/broken": "etcd: secret detail", "/v20190125/meshes/m/virtualRouters": "panic: "} {
		log.Reset()
		a := signedMessage(t, "GET", target, "").send(t, mux)
		id := a.header.Get("x-amzn-RequestId")
		if !strings.Contains(log.String(), cause) || !strings.Contains(log.String(), id) || strings.Contains(a.body, "etcd") {
			t.Errorf("%s: answer %s, log %s", target, a.body, log.String())
		}
		if strings.Contains(log.String(), rootCreds.SecretAccessKey) {
			t.Errorf("the log holds a secret: %s", log.String())
		}
	}
}
