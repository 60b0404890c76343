package server

import (
	"context"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/iam/policy"
)

// maxSessionPolicy bounds a session policy, in characters, as AWS does.
const maxSessionPolicy = 2048

// assumedRole is what AssumeRole answers.
type assumedRole struct {
	sessionToken
	AssumedRoleID string `xml:"AssumedRoleUser>AssumedRoleId"`
	Arn           string `xml:"AssumedRoleUser>Arn"`
}

// assumeRole gives a session of a role to whom its trust policy and the caller's
// own policies let, which was asked before (iam.Authorize).
func (s *STS) assumeRole(ctx context.Context, f *awsapi.Form) (any, error) {
	invalid := func(format string, args ...any) error {
		return api.Exceptionf("ValidationError", http.StatusBadRequest, format, args...)
	}
	ref, ok := iam.RoleOf(f.Value("RoleArn"))
	if !ok {
		return nil, invalid("RoleArn: %.200q is not the ARN of a role", f.Value("RoleArn"))
	}
	name := f.Value("RoleSessionName")
	if !iam.IsEntityName(name) || len(name) < 2 {
		return nil, invalid("RoleSessionName: %.80q is not 2 to 64 letters, digits and +=,.@_-", name)
	}
	narrowed := f.Value("Policy")
	if utf8.RuneCountInString(narrowed) > maxSessionPolicy || len(narrowed) > maxSessionPolicy {
		return nil, api.Exceptionf("PackedPolicyTooLarge", http.StatusBadRequest, "Policy: a session policy has at most %d characters", maxSessionPolicy)
	}
	if narrowed != "" {
		if _, err := policy.Parse([]byte(narrowed), policy.Identity); err != nil {
			return nil, api.Exceptionf("MalformedPolicyDocument", http.StatusBadRequest, "Policy: %v", err)
		}
	}
	role, err := s.Store.Entity(ref)
	if err != nil {
		return nil, invalid("RoleArn: there is no role %s", ref.ARN())
	}
	seconds, err := f.Int("DurationSeconds", iam.LeastSession, iam.MostSession, min(roleSession, role.MaxSession))
	if err != nil {
		return nil, err
	}
	if seconds > role.MaxSession {
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if f.Principal.Kind == iam.RoleSession && seconds > roleSession {
		return nil, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	expires := s.Now().UTC().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)
	key, token, err := s.Store.AssumeRole(ctx, f.Principal, role, iam.Assumed{Session: name, Policy: narrowed}, expires)
	if err != nil {
		return nil, err
	}
	return assumedRole{sessionTokenOf(key, token), key.Principal.UserID(), key.Principal.ARN()}, nil
}
