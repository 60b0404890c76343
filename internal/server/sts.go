package server

import (
	"context"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

// stsName is the service that a request's credential scope must name.
const stsName = "sts"

// How long a session lives, in seconds, as AWS has it.
const (
	leastSession = 900
	mostSession  = 129600
	// A session of a role lives so long unless it is said otherwise, and no longer
	// if a session of a role asks for it.
	roleSession    = 3600
	defaultSession = 43200
	// A longer session of the account's root is cut to this.
	rootSession = 3600
)

// STS is the part of AWS STS that clients of App Mesh need: who a caller is
// (Terraform and scripts ask first) and temporary credentials for it. It decides
// how long a session lives; who may have one is package iam's, what a token
// holds is package store's (facts/certificates.md D).
type STS struct {
	Store *store.Store
	Now   func() time.Time
}

// Mount routes the actions.
func (s *STS) Mount(mux *awsapi.Mux) {
	mux.HandleAction(stsName, "GetCallerIdentity", s.callerIdentity)
	mux.HandleAction(stsName, "GetSessionToken", s.sessionToken, "DurationSeconds", "SerialNumber", "TokenCode")
	mux.HandleAction(stsName, "AssumeRole", s.assumeRole, "RoleArn", "RoleSessionName", "Policy", "DurationSeconds", "ExternalId")
}

type callerIdentity struct {
	Arn     string
	UserID  string `xml:"UserId"`
	Account string
}

func (s *STS) callerIdentity(_ context.Context, f *awsapi.Form) (any, error) {
	return callerIdentity{Arn: f.Principal.ARN(), UserID: f.Principal.UserID(), Account: f.Principal.Account}, nil
}

type sessionToken struct {
	AccessKeyID     string `xml:"Credentials>AccessKeyId"`
	SecretAccessKey string `xml:"Credentials>SecretAccessKey"`
	SessionToken    string `xml:"Credentials>SessionToken"`
	Expiration      string `xml:"Credentials>Expiration"`
}

func (s *STS) sessionToken(ctx context.Context, f *awsapi.Form) (any, error) {
	if f.Value("SerialNumber") != "" || f.Value("TokenCode") != "" {
		return nil, api.Exceptionf("AccessDeniedException", http.StatusForbidden, "MultiFactorAuthentication failed: this server knows no MFA devices; leave SerialNumber and TokenCode out")
	}
	seconds, err := f.Int("DurationSeconds", leastSession, mostSession, defaultSession)
	if err != nil {
		return nil, err
	}
	if f.Principal.Kind == iam.Root {
		seconds = min(seconds, rootSession)
	}
	// The answer's Expiration has whole seconds, and so has the session.
	expires := s.Now().UTC().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)
	key, token, err := s.Store.CreateSession(ctx, f.Principal.AccessKeyID, expires)
	if err != nil {
		return nil, err
	}
	return sessionTokenOf(key, token), nil
}

func sessionTokenOf(key iam.Key, token string) sessionToken {
	return sessionToken{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal(), SessionToken: token, Expiration: key.Expires.Format(time.RFC3339)}
}
