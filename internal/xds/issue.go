package xds

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Bounds of the call by which agents get certificates of Fairlead's own SDS: one
// request and one answer on a stream that is authenticated before anything is
// read (awsapi.IssueCertificate).
const (
	// maxIssueRequest bounds a request, in bytes: a CSR has 32 KiB at most, and a
	// name 2 KiB.
	maxIssueRequest = 64 << 10
	// issueRate and issueBurst are what one access key may ask for per second: a
	// proxy has few secrets and renews them at half their life.
	issueRate, issueBurst = 5, 100
	// maxIssueKeys bounds the access keys that are remembered.
	maxIssueKeys = 20_000
	// issueTimeout bounds how long a request may take to come.
	issueTimeout = 10 * time.Second
)

// IssueRequest asks for a certificate.
type IssueRequest struct {
	Resource string `json:"resource"` // as a node.id
	Secret   string `json:"secret"`   // mesh.OwnCertificate.SecretName
	CSR      string `json:"csr"`      // PEM; gives the key and nothing else
}

// Issued is the answer.
type Issued struct {
	Chain string  `json:"chain"` // PEM, without the root
	Life  float64 `json:"life"`  // seconds from now, by the server's clock
}

// Issuer signs for the proxies of an endpoint, by its spec alone. Its errors are
// mesh.ErrNotNamed (status 9) and mesh.ErrCSR (3); any other means "not now".
type Issuer func(ctx context.Context, by iam.Principal, name mesh.Name, id mesh.ID, r IssueRequest) (Issued, error)

// ParseIssueRequest reads a request strictly.
func ParseIssueRequest(text []byte) (r IssueRequest, err error) {
	if len(text) > maxIssueRequest {
		return r, fmt.Errorf("read request for a certificate: it has %d bytes, and at most %d are taken", len(text), maxIssueRequest)
	}
	if err := json.Unmarshal(text, &r, json.RejectUnknownMembers(true)); err != nil {
		return r, fmt.Errorf("read request for a certificate: %w", err)
	}
	if r.Resource == "" || r.Secret == "" || r.CSR == "" {
		return r, errors.New("read request for a certificate: resource, secret and csr are needed")
	}
	return r, nil
}

// issueLimits are the rates of access keys.
type issueLimits struct {
	mu    sync.Mutex
	byKey map[string]*rate.Limiter
}

func (l *issueLimits) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = map[string]*rate.Limiter{}
	}
	limit := l.byKey[key]
	if limit == nil {
		if len(l.byKey) >= maxIssueKeys {
			for other, used := range l.byKey {
				if used.TokensAt(now) >= issueBurst { // as good as new
					delete(l.byKey, other)
				}
			}
		}
		limit = rate.NewLimiter(issueRate, issueBurst)
		l.byKey[key] = limit
	}
	return limit.AllowN(now, 1)
}

// registerIssuer serves the call if there is an issuer.
func (s *Server) registerIssuer() {
	if s.config.Issue == nil {
		return
	}
	service, method, _ := strings.Cut(awsapi.IssueCertificate[1:], "/")
	s.grpc.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: method, ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, rpc grpc.ServerStream) (err error) {
			defer func() {
				if p := recover(); p != nil {
					s.config.Metrics.panicked("issue")
					s.config.Log.Error("a request for a certificate panicked", "panic", p, "stack", string(debug.Stack()))
					err = status.Error(codes.Internal, "internal error")
				}
			}()
			return s.issue(rpc)
		},
	}}}, nil)
}

func (s *Server) issue(rpc grpc.ServerStream) error {
	ctx, err := s.Authenticate(rpc.Context(), awsapi.IssueCertificate)
	if err != nil {
		return err
	}
	principal, _ := ctx.Value(principalKey{}).(iam.Principal)
	if !s.limits.allow(principal.AccessKeyID, s.config.Now()) {
		return status.Errorf(codes.ResourceExhausted, "the access key %s asks for certificates more than %d times a second", principal.AccessKeyID, issueRate)
	}
	text, err := receiveOne(rpc)
	if err != nil {
		return err
	}
	r, err := ParseIssueRequest(text)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	name, id, err := iam.AuthorizeStream(principal, r.Resource)
	if err != nil {
		return s.refuse(err)
	}
	made, err := s.config.Issue(ctx, principal, name, id, r)
	if err != nil {
		s.config.Log.Warn("no certificate was issued", "mesh", name.Mesh, "resource", id.String(), "secret", r.Secret, "error", err)
		return issueStatus(err)
	}
	answer, err := json.Marshal(made)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return rpc.SendMsg(wrapperspb.Bytes(answer))
}

// issueStatus is what an agent is told. What is the server's own matter it need
// not know.
func issueStatus(err error) error {
	switch {
	case errors.Is(err, mesh.ErrNotNamed):
		return status.Error(codes.FailedPrecondition, mesh.ErrNotNamed.Error())
	case errors.Is(err, mesh.ErrCSR):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Error(codes.Unavailable, "the server cannot issue certificates at the moment; its log says why")
}

// receiveOne reads the request, which must come soon.
func receiveOne(rpc grpc.ServerStream) ([]byte, error) {
	var request wrapperspb.BytesValue
	came := make(chan error, 1)
	go func() { came <- rpc.RecvMsg(&request) }()
	late := time.NewTimer(issueTimeout)
	defer late.Stop()
	select {
	case err := <-came:
		return request.GetValue(), err
	case <-late.C:
		return nil, status.Error(codes.DeadlineExceeded, "no request came")
	}
}
