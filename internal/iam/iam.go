// Package iam says who a caller is and what it may do: the root key may call
// every API and opens no stream, a proxy's key opens the stream of the one
// resource that it is bound to and calls nothing. It holds no keys (package
// store does) and checks no signatures (package awsapi does). It follows
// facts/appmesh-api.md D and design.md 3 ("Agent").
package iam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what sort of principal a key belongs to.
type Kind string

// The kinds of principals.
const (
	Root  Kind = "root"  // the operator: every API, no stream
	Proxy Kind = "proxy" // one proxy: the stream of its own resource
)

// Principal is an authenticated caller.
type Principal struct {
	Account     string // 12 digits
	Kind        Kind
	AccessKeyID string
	// Resource is what a proxy is bound to: "mesh/M/virtualNode/N" or
	// "mesh/M/virtualGateway/N", where M may be NAME@OWNER. Empty for root.
	Resource string
}

// ARN names the principal as AWS's messages and logs do; the zero Principal is
// "anonymous".
func (p Principal) ARN() string {
	switch p.Kind {
	case Root:
		return "arn:aws:iam::" + p.Account + ":root"
	case Proxy:
		return "arn:aws:iam::" + p.Account + ":user/proxy/" + p.Resource
	}
	return "anonymous"
}

// SessionKeyPrefix begins the ids of session keys, as AWS's do, and of no others.
const SessionKeyPrefix = "ASIA"

// Session says whether the principal has signed with a session's credentials.
func (p Principal) Session() bool { return strings.HasPrefix(p.AccessKeyID, SessionKeyPrefix) }

// Key is an access key and whose it is.
type Key struct {
	ID        string
	Secret    Secret
	Principal Principal
	Expires   time.Time // of a session's key; zero: never
}

// Keys finds access keys. Its methods return an error that wraps ErrUnknownKey
// if there is no such key; any other error means that it cannot tell now.
type Keys interface {
	// Key finds a key that is good until it is deleted.
	Key(ctx context.Context, accessKeyID string) (Key, error)
	// SessionKey finds the key of a session, expired or not, by the token that
	// came along with its id.
	SessionKey(ctx context.Context, accessKeyID, token string) (Key, error)
}

// What a refusal comes down to; see Refusal.
var (
	// ErrUnknownKey: no such access key. Callers report it as unauthenticated.
	ErrUnknownKey = errors.New("unknown access key")
	// ErrUnauthenticated: no or bad credentials. gRPC status 16.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrDenied: a known principal that may not do this. HTTP 403, gRPC status 7.
	ErrDenied = errors.New("access denied")
	// ErrInvalidResource: not the name of a mesh endpoint. gRPC status 3.
	ErrInvalidResource = errors.New("invalid resource")
)

// Refusal is an error whose message is meant for the caller. Its cause is one
// of this package's sentinels: test with errors.Is.
type Refusal struct {
	Cause   error
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the sentinel.
func (r *Refusal) Unwrap() error { return r.Cause }

// Refuse makes a Refusal.
func Refuse(cause error, format string, args ...any) *Refusal {
	return &Refusal{Cause: cause, Message: fmt.Sprintf(format, args...)}
}

// AuthorizeAPI says whether a principal may call an operation: service is a
// signing name ("appmesh", "fairlead"), operation as in IAM actions. It returns
// nil or a Refusal with ErrDenied.
func AuthorizeAPI(p Principal, service, operation string) error {
	if service == "sts" && operation == "GetSessionToken" && p.Session() {
		return Refuse(ErrDenied, "Cannot call GetSessionToken with session credentials")
	}
	if p.Kind == Root {
		return nil
	}
	// Whoever has a key may ask whose it is, as on AWS.
	if p.Kind == Proxy && service == "sts" && operation == "GetCallerIdentity" {
		return nil
	}
	return Refuse(ErrDenied, "User: %s is not authorized to perform: %s:%s because the key of a proxy opens the stream of its own resource and nothing else", p.ARN(), service, operation)
}
