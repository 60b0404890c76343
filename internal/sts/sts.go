// Package sts is the part of AWS STS that clients of App Mesh need: who a caller
// is (Terraform and scripts ask first) and temporary credentials for it. It
// decides how long a session lives; who may have one is package iam's, what a
// token holds is package store's. It follows facts/certificates.md D.
package sts

import (
	"context"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

// SigningName is the service that a request's credential scope must name.
const SigningName = "sts"

// How long a session lives, in seconds, as AWS has it.
const (
	leastDuration   = 900
	mostDuration    = 129600
	defaultDuration = 43200
	// A longer session of the account's root is cut to this.
	rootDuration = 3600
)

// Service implements the actions. All members are needed.
type Service struct {
	Store *store.Store
	Now   func() time.Time
}

// Mount routes the actions.
func (s *Service) Mount(mux *awsapi.Mux) {
	mux.HandleAction(SigningName, "GetCallerIdentity", s.callerIdentity)
	mux.HandleAction(SigningName, "GetSessionToken", s.sessionToken, "DurationSeconds", "SerialNumber", "TokenCode")
}

type callerIdentity struct {
	Arn     string
	UserID  string `xml:"UserId"`
	Account string
}

func (s *Service) callerIdentity(_ context.Context, f *awsapi.Form) (any, error) {
	id := callerIdentity{Arn: f.Principal.ARN(), UserID: f.Principal.Account, Account: f.Principal.Account}
	if f.Principal.Kind != iam.Root {
		id.UserID = f.Principal.AccessKeyID
	}
	return id, nil
}

type sessionToken struct {
	AccessKeyID     string `xml:"Credentials>AccessKeyId"`
	SecretAccessKey string `xml:"Credentials>SecretAccessKey"`
	SessionToken    string `xml:"Credentials>SessionToken"`
	Expiration      string `xml:"Credentials>Expiration"`
}

func (s *Service) sessionToken(ctx context.Context, f *awsapi.Form) (any, error) {
	if f.Value("SerialNumber") != "" || f.Value("TokenCode") != "" {
		return nil, api.Exceptionf("AccessDeniedException", http.StatusForbidden, "MultiFactorAuthentication failed: this server knows no MFA devices; leave SerialNumber and TokenCode out")
	}
	seconds, err := f.Int("DurationSeconds", leastDuration, mostDuration, defaultDuration)
	if err != nil {
		return nil, err
	}
	if f.Principal.Kind == iam.Root {
		seconds = min(seconds, rootDuration)
	}
	// The answer's Expiration has whole seconds, and so has the session.
	expires := s.Now().UTC().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)
	key, token, err := s.Store.CreateSession(ctx, f.Principal.AccessKeyID, expires)
	if err != nil {
		return nil, err
	}
	return sessionToken{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal(), SessionToken: token, Expiration: expires.Format(time.RFC3339)}, nil
}
