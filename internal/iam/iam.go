// Package iam says who a caller is and what it may do: the root key may call
// every API and opens no stream, a proxy's key opens the stream of the one
// resource that it is bound to and calls nothing. It holds no keys (package
// store does) and checks no signatures (package awsapi does). It follows
// facts/appmesh-api.md D and design.md 3 ("Agent").
package iam

import (
	"cmp"
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
	Root        Kind = "root"    // the operator: every API, no stream
	Proxy       Kind = "proxy"   // one proxy: the stream of its own resource
	User        Kind = "user"    // what its policies allow
	RoleSession Kind = "session" // whoever has assumed a role: what the role's policies allow
)

// Assumed is a session of a role.
type Assumed struct {
	Session string `json:"session"`         // its name
	Policy  string `json:"policy,omitzero"` // that it was narrowed to
}

// Principal is an authenticated caller.
type Principal struct {
	Account     string // 12 digits
	Kind        Kind
	AccessKeyID string
	// Resource is what a proxy is bound to: "mesh/M/virtualNode/N" or
	// "mesh/M/virtualGateway/N", where M may be NAME@OWNER. Empty for others.
	Resource string
	Name     string   // of a user or role
	ID       string   // of that entity
	Assumed  *Assumed // of a session of a role
	// Parent is the key that a session was begun with; if that goes it ends.
	Parent string
}

// ARN names the principal as AWS's messages and logs do; the zero Principal is
// "anonymous".
func (p Principal) ARN() string {
	switch p.Kind {
	case Root:
		return "arn:aws:iam::" + p.Account + ":root"
	case Proxy:
		return "arn:aws:iam::" + p.Account + ":user/proxy/" + p.Resource
	case User:
		return Ref{KindUser, p.Account, p.Name}.ARN()
	case RoleSession:
		return "arn:aws:sts::" + p.Account + ":assumed-role/" + p.Name + "/" + p.Assumed.Session
	}
	return "anonymous"
}

// UserID is the principal's unique id as GetCallerIdentity has it.
func (p Principal) UserID() string {
	switch p.Kind {
	case Root:
		return p.Account
	case User:
		return p.ID
	case RoleSession:
		return p.ID + ":" + p.Assumed.Session
	}
	return p.AccessKeyID
}

// LongTermKey is the key that the principal's credentials go back to.
func (p Principal) LongTermKey() string { return cmp.Or(p.Parent, p.AccessKeyID) }

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
	// Entity finds a user, role, group or policy, as of now. Its error says that
	// there is none that can be read.
	Entity(Ref) (*Entity, error)
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

// Admit says what can be told of a call before it is read: whoever has a key may
// ask whose it is, as on AWS, and no more with the key of a proxy. It returns nil
// or a Refusal with ErrDenied; settled says that nothing else needs to be asked.
func Admit(p Principal, service, operation, home string) (settled bool, err error) {
	if service == "sts" && operation == "GetCallerIdentity" && p.Kind != "" {
		return true, nil
	}
	if p.Kind == Proxy || p.Kind == "" {
		return true, Refuse(ErrDenied, "User: %s is not authorized to perform: %s:%s because the key of a proxy opens the stream of its own resource and nothing else", p.ARN(), service, operation)
	}
	if service == "sts" && operation == "GetSessionToken" {
		if p.Session() {
			return true, Refuse(ErrDenied, "Cannot call GetSessionToken with session credentials")
		}
		return true, nil
	}
	// A trust policy is about root, too.
	return p.Kind == Root && p.Account == home && service != "sts", nil
}
