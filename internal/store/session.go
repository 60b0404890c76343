package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/iam"
)

// A session is not kept: its token is the session, sealed for the id of its key
// alone, so that every server of the store can open it and nobody else can make
// or alter one. What is checked anew at every use is that the key that the
// session was made with is still there.
const (
	purposeSession = "session"
	// sessionPlace is where sealed sessions would lie if they were kept.
	sessionPlace = keyRoot + "session/"
	// maxToken bounds what is opened, in characters; our own have some 400, and
	// with a session policy of the greatest length 3200.
	maxToken = 4096
)

// tokenEncoding has no character that a header or a URL would have to escape.
var tokenEncoding = base64.RawURLEncoding.Strict()

// sealedSession is a session as it lies sealed in its token.
type sealedSession struct {
	Parent  string    `json:"parent"` // the key that it was made with
	Secret  string    `json:"secret"`
	Expires time.Time `json:"expires"`
	// Of a session of a role alone.
	Account string       `json:"account,omitzero"`
	Role    string       `json:"role,omitzero"`
	RoleID  string       `json:"roleId,omitzero"`
	Assumed *iam.Assumed `json:"assumed,omitzero"`
}

// CreateSession makes credentials that are good until a time, for whoever the
// key is of. Nothing is written: the token holds everything.
func (s *Store) CreateSession(ctx context.Context, accessKeyID string, expires time.Time) (key iam.Key, token string, err error) {
	parent, err := s.Key(ctx, accessKeyID)
	if err != nil {
		return iam.Key{}, "", err
	}
	return s.sealSession(parent.Principal, sealedSession{Parent: parent.ID, Expires: expires.UTC()})
}

// AssumeRole makes credentials of a role that are good until a time. They end
// with the role, or with the key that the caller's own credentials go back to.
func (s *Store) AssumeRole(ctx context.Context, caller iam.Principal, role *iam.Entity, assumed iam.Assumed, expires time.Time) (key iam.Key, token string, err error) {
	parent, err := s.Key(ctx, caller.LongTermKey())
	if err != nil {
		return iam.Key{}, "", err
	}
	session := sealedSession{Parent: parent.ID, Expires: expires.UTC(), Account: role.Account, Role: role.Name, RoleID: role.ID, Assumed: &assumed}
	return s.sealSession(session.principal(parent.Principal), session)
}

func (s *Store) sealSession(of iam.Principal, session sealedSession) (key iam.Key, token string, err error) {
	key = newKey(iam.SessionKeyPrefix, of)
	key.Principal.Parent, key.Expires = session.Parent, session.Expires
	session.Secret = key.Secret.Reveal()
	value, err := json.Marshal(&session)
	if err != nil {
		return iam.Key{}, "", fmt.Errorf("write session of %s: %w", session.Parent, err)
	}
	sealed, err := s.seal.seal(sessionPlace+key.ID, purposeSession, value)
	if err != nil {
		return iam.Key{}, "", fmt.Errorf("seal session of %s: %w", session.Parent, err)
	}
	return key, tokenEncoding.EncodeToString(sealed), nil
}

// principal is whose session it is: the role's, or whoever's the parent is.
func (s *sealedSession) principal(parent iam.Principal) iam.Principal {
	if s.Assumed == nil {
		return parent
	}
	return iam.Principal{Account: s.Account, Kind: iam.RoleSession, Name: s.Role, ID: s.RoleID, Assumed: s.Assumed}
}

// SessionKey opens a token that came along with the id of its key. It returns
// iam.ErrUnknownKey if the token is not that key's, or if the key that the
// session was made with, or the role, is gone. The caller looks at Expires.
func (s *Store) SessionKey(ctx context.Context, accessKeyID, token string) (iam.Key, error) {
	session, err := openSession(s.seal, accessKeyID, token)
	if err != nil {
		return iam.Key{}, fmt.Errorf("open session of %q: %w: %w", accessKeyID, err, iam.ErrUnknownKey)
	}
	parent, err := s.Key(ctx, session.Parent)
	if err != nil {
		return iam.Key{}, err
	}
	principal := session.principal(parent.Principal)
	principal.AccessKeyID, principal.Parent = accessKeyID, session.Parent
	if principal.Kind == iam.RoleSession {
		role, err := s.Entity(iam.Ref{Kind: iam.KindRole, Account: principal.Account, Name: principal.Name})
		if err != nil || role.ID != principal.ID {
			return iam.Key{}, fmt.Errorf("open session of %q: its role is gone: %w", accessKeyID, iam.ErrUnknownKey)
		}
	}
	return iam.Key{ID: accessKeyID, Secret: iam.NewSecret(session.Secret), Principal: principal, Expires: session.Expires}, nil
}

func openSession(seal *sealer, accessKeyID, token string) (sealedSession, error) {
	var session sealedSession
	if !strings.HasPrefix(accessKeyID, iam.SessionKeyPrefix) {
		return session, errors.New("the key is not a session's")
	}
	// The decoder would skip line breaks.
	if len(token) > maxToken || strings.ContainsAny(token, "\r\n") {
		return session, errors.New("the token is none of ours")
	}
	sealed, err := tokenEncoding.DecodeString(token)
	if err != nil {
		return session, fmt.Errorf("decode token: %w", err)
	}
	value, err := seal.open(sessionPlace+accessKeyID, purposeSession, sealed)
	if err != nil {
		return session, err
	}
	if err := json.Unmarshal(value, &session); err != nil {
		return session, fmt.Errorf("read token: %w", err)
	}
	return session, nil
}
