package awsapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// Mux is an http.Handler that verifies every request's signature, finds the
// operation and calls it. Mount and HandleOperator before serving.
type Mux struct {
	cfg      Config
	bodies   bodies
	throttle *throttle
	routes   map[int][]*route       // by number of segments
	actions  map[string]*route      // of the query protocol, by name
	targets  map[string]*rpcService // by the prefix of their targets
}

// route is one operation on one method and path.
type route struct {
	method   string
	segments []segment
	service  string // signing name
	action   string // operation, as in IAM actions
	errors   []string
	call     func(ctx context.Context, in incoming) (any, error)
}

// segment is a piece of a path template: literal text or a label.
type segment struct {
	text  string
	label bool
}

// incoming is a verified request whose route is found.
type incoming struct {
	principal iam.Principal
	protocol  protocol
	labels    map[string]string
	query     []param
	form      map[string]string // of the query protocol
	body      []byte
}

// NewMux returns a Mux without routes.
func NewMux(cfg Config) *Mux {
	return &Mux{cfg: cfg, bodies: newBodies(), throttle: newThrottle(cfg.Rates), routes: map[int][]*route{}, actions: map[string]*route{}, targets: map[string]*rpcService{}}
}

// Mount routes all operations of a service model to its implementation.
// signingName is the service that a request's credential scope must name. An
// operation's error is answered as itself if it is an *api.Exception or an
// *iam.Refusal; any other is an internal error, logged with the request's id.
func Mount[S any](m *Mux, signingName string, service S, ops []api.Operation[S]) {
	for _, op := range ops {
		m.add(op.Method, op.URI, routeOf(signingName, service, op))
	}
}

// routeOf binds an operation of a service model.
func routeOf[S any](signingName string, service S, op api.Operation[S]) *route {
	planAll(reflect.TypeOf(op.New()))
	return &route{service: signingName, action: op.Name, errors: op.Errors,
		call: func(ctx context.Context, in incoming) (any, error) {
			input := op.New()
			if err := in.decode(input); err != nil {
				return nil, err
			}
			out, err := op.Call(ctx, service, input)
			if err != nil {
				return nil, err
			}
			return payloadOf(out), nil
		}}
}

// Request is a request of the operator API.
type Request struct {
	Principal iam.Principal
	Body      []byte
	labels    map[string]string
	query     map[string]string
}

// Label returns a percent-decoded segment of the path: {name} in the template.
func (r *Request) Label(name string) string { return r.labels[name] }

// Query returns a query parameter, or "" if it is absent.
func (r *Request) Query(name string) string { return r.query[name] }

// Decode reads the body into v, a pointer to a structure with the tags of the
// generated types, strictly, and validates it. The error is for the caller.
func (r *Request) Decode(v any) error { return DecodeValid(r.Body, v) }

// Stream is an answer that is written piece by piece, and is no JSON. Its error is
// answered if nothing was written before; else the connection breaks off.
type Stream func(ctx context.Context, w io.Writer) error

// OperatorFunc implements an action of the operator API: its result is the JSON
// body of the answer (nil: {}) or a Stream, its error as Mount has it.
type OperatorFunc func(ctx context.Context, r *Request) (any, error)

// HandleOperator routes an action of Fairlead's own API. The template starts
// with /fairlead/v1/ and has labels in braces; action is named as in policies,
// without "fairlead:". query names the parameters that it takes; others are
// refused.
func (m *Mux) HandleOperator(method, template, action string, do OperatorFunc, query ...string) {
	m.add(method, template, &route{service: OperatorService, action: action,
		call: func(ctx context.Context, in incoming) (any, error) {
			r := &Request{Principal: in.principal, Body: in.body, labels: in.labels, query: map[string]string{}}
			var l faultList
			for _, p := range in.query {
				if _, twice := r.query[p.name]; twice {
					l.add(p.name, shorten(p.value), "is given twice")
				}
				if !slices.Contains(query, p.name) {
					l.add(p.name, shorten(p.value), "is not a known query parameter")
				}
				r.query[p.name] = p.value
			}
			if len(l.faults) > 0 {
				return nil, l.faults
			}
			return do(ctx, r)
		}})
}

func (m *Mux) add(method, template string, r *route) {
	r.method = method
	for _, text := range splitPath(template) {
		name, label := strings.CutPrefix(text, "{")
		r.segments = append(r.segments, segment{text: strings.TrimSuffix(name, "}"), label: label})
	}
	for _, other := range m.routes[len(r.segments)] {
		if other.method == method && overlap(other.segments, r.segments) {
			panic(fmt.Sprintf("awsapi: %s:%s and %s:%s have the same path", r.service, r.action, other.service, other.action))
		}
	}
	m.routes[len(r.segments)] = append(m.routes[len(r.segments)], r)
}

// overlap reports whether one path can match both templates.
func overlap(a, b []segment) bool {
	for i := range a {
		if !a[i].label && !b[i].label && a[i].text != b[i].text {
			return false
		}
	}
	return true
}

// route finds the operation of a verified request. Method, path, target, form and
// protocol are all signed.
func (m *Mux) route(p protocol, r *http.Request, v verified) (*route, incoming, error) {
	in := incoming{principal: v.principal, protocol: p, query: v.query, body: v.body}
	var found *route
	var err error
	switch p {
	case formQuery:
		found, in.form, err = m.findAction(r.Method, v)
	case jsonRPC, rpcCBOR:
		found, err = m.findTarget(p, r, v)
	default:
		found, in.labels, err = m.find(r.Method, v.path)
	}
	return found, in, err
}

// previewService is the signing name of App Mesh's preview channel: the same
// operations at the same paths.
const previewService = "appmesh-preview"

// signedFor says whether a credential scope is for the operation's service.
func (r *route) signedFor(service string) bool {
	return service == r.service || r.service == StreamService && service == previewService
}

// find returns the route of a request and its labels. The path is matched as it
// was sent: a label may hold an escaped slash.
func (m *Mux) find(method, path string) (*route, map[string]string, error) {
	raw := splitPath(path)
	var allowed []string
	for _, r := range m.routes[len(raw)] {
		if !r.matches(raw) {
			continue
		}
		if r.method != method {
			allowed = append(allowed, r.method)
			continue
		}
		labels := map[string]string{}
		for i, s := range r.segments {
			if !s.label {
				continue
			}
			value, err := label(raw[i])
			if err != nil {
				return nil, nil, api.Exceptionf(codeBadRequest, http.StatusBadRequest, "%s cannot be read: %v", s.text, err)
			}
			labels[s.text] = value
		}
		return r, labels, nil
	}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		return nil, nil, &notAllowed{allowed: slices.Compact(allowed), method: method}
	}
	return nil, nil, api.Exceptionf(codeUnknown, http.StatusNotFound, "no operation is at %s", shorten(path))
}

func (r *route) matches(raw []string) bool {
	for i, s := range r.segments {
		if s.label && raw[i] == "" || !s.label && raw[i] != s.text {
			return false
		}
	}
	return true
}

// notAllowed is a path that takes other methods.
type notAllowed struct {
	allowed []string
	method  string
}

func (e *notAllowed) Error() string {
	return fmt.Sprintf("the method %s is not allowed here: use %s", e.method, strings.Join(e.allowed, ", "))
}
