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
	// maxToken bounds what is opened, in characters; our own have some 400.
	maxToken = 2048
)

// tokenEncoding has no character that a header or a URL would have to escape.
var tokenEncoding = base64.RawURLEncoding.Strict()

// sealedSession is a session as it lies sealed in its token.
type sealedSession struct {
	Parent  string    `json:"parent"` // the key that it was made with
	Secret  string    `json:"secret"`
	Expires time.Time `json:"expires"`
}

// CreateSession makes credentials that are good until a time, for whoever the
// key is of. Nothing is written: the token holds everything.
func (s *Store) CreateSession(ctx context.Context, accessKeyID string, expires time.Time) (key iam.Key, token string, err error) {
	parent, err := s.Key(ctx, accessKeyID)
	if err != nil {
		return iam.Key{}, "", err
	}
	key = newKey(iam.SessionKeyPrefix, parent.Principal)
	key.Expires = expires.UTC()
	value, err := json.Marshal(&sealedSession{Parent: parent.ID, Secret: key.Secret.Reveal(), Expires: key.Expires})
	if err != nil {
		return iam.Key{}, "", fmt.Errorf("write session of %s: %w", accessKeyID, err)
	}
	sealed, err := s.seal.seal(sessionPlace+key.ID, purposeSession, value)
	if err != nil {
		return iam.Key{}, "", fmt.Errorf("seal session of %s: %w", accessKeyID, err)
	}
	return key, tokenEncoding.EncodeToString(sealed), nil
}

// SessionKey opens a token that came along with the id of its key. It returns
// iam.ErrUnknownKey if the token is not that key's, or if the key that the
// session was made with is gone. The caller looks at Expires.
func (s *Store) SessionKey(ctx context.Context, accessKeyID, token string) (iam.Key, error) {
	session, err := openSession(s.seal, accessKeyID, token)
	if err != nil {
		return iam.Key{}, fmt.Errorf("open session of %q: %w: %w", accessKeyID, err, iam.ErrUnknownKey)
	}
	parent, err := s.Key(ctx, session.Parent)
	if err != nil {
		return iam.Key{}, err
	}
	principal := parent.Principal
	principal.AccessKeyID = accessKeyID
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
