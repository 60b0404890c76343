// Package awsapi is the AWS wire, server side: SigV4 verification, routing of
// the operations of a service model on the raw path or by their targets, strict
// decoding (of JSON, and of CBOR where clients speak it) and validation from the
// tags of the generated types, and errors as the SDKs expect them. It decides
// nothing about meshes: services do, behind Mount, MountTargets and
// HandleOperator. It follows facts/appmesh-api.md A, facts/certificates.md C and
// D, and design.md 3.
package awsapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/iam"
)

// OperatorService is the signing name of Fairlead's own API under /fairlead/v1/.
const OperatorService = "fairlead"

// Sizes of a request, in bytes.
const (
	// MaxBody is what is read of any request, before its signature is known.
	MaxBody = 4 << 20
	// MaxSpecBody is what a restJson1 operation takes.
	MaxSpecBody = 1 << 20
	// MaxHeader bounds the request line and all headers.
	MaxHeader = 64 << 10
)

// patience is how long a client may take to send a whole request, and then to
// take its answer.
const patience = 9 * time.Second

// Config is what verification and the HTTP server need.
type Config struct {
	Keys   iam.Keys
	Region string // the only region that a credential scope may name
	// Account is the server's own: whose root calls everything, and whose
	// principals may be allowed to call Fairlead's own API.
	Account string
	// Tags are those of the resource of an ARN; nil: no resource has any. It is
	// asked only where policies can depend on them.
	Tags  func(ctx context.Context, arn string) (map[string]string, error)
	Rates Rates            // the zero value: not throttled
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: nothing is logged
}

func (c Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// call is what is known of the request that a context belongs to.
type call struct {
	principal iam.Principal
	requestID string
}

type callKey struct{}

// PrincipalFrom returns who signed the request that ctx belongs to. Outside a
// request it returns the zero Principal, which may do nothing.
func PrincipalFrom(ctx context.Context) iam.Principal {
	c, _ := ctx.Value(callKey{}).(call)
	return c.principal
}

// RequestIDFrom returns the x-amzn-RequestId of the request that ctx belongs to.
func RequestIDFrom(ctx context.Context) string {
	c, _ := ctx.Value(callKey{}).(call)
	return c.requestID
}

// WithPrincipal returns a context as a request of that principal has it, for
// callers inside the process.
func WithPrincipal(ctx context.Context, p iam.Principal) context.Context {
	c, _ := ctx.Value(callKey{}).(call)
	c.principal = p
	return context.WithValue(ctx, callKey{}, c)
}

// Partition is the AWS partition of a region: the second field of its ARNs.
func Partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// NewServer returns an HTTP server with the limits that keep one slow or
// talkative client from holding the others up. The caller sets TLSConfig and
// calls Serve.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            patience,
		ReadTimeout:                  patience,
		WriteTimeout:                 60 * time.Second, // an operation may take its time; see ServeHTTP for slow readers
		IdleTimeout:                  120 * time.Second,
		DisableGeneralOptionsHandler: true, // nothing is answered unsigned
		MaxHeaderBytes:               MaxHeader,
		// On HTTP/2 a connection that says nothing is asked whether it lives.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, SendPingTimeout: patience / 2, PingTimeout: patience / 2, WriteByteTimeout: patience},
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	return s
}
