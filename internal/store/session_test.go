package store

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/iam"
)

// TestSessions: a token opens on every server of a store and after a restart,
// for its own key alone, as long as the key that it was made with is there.
func TestSessions(t *testing.T) {
	endpoint, _ := external(t, 0)
	config := Config{DataDir: t.TempDir(), Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	other := Config{DataDir: t.TempDir(), Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	s, replica := open(t, config), open(t, other)
	ctx := bounded(t)
	parent, err := s.CreateProxyKey(ctx, account, "mesh/m/virtualNode/n")
	if err != nil {
		t.Fatal(err)
	}
	if err := replica.WaitFor(ctx, s.latest(t)); err != nil {
		t.Fatal(err)
	}
	before := s.latest(t)
	expires := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	key, token, err := s.CreateSession(ctx, parent.ID, expires)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := s.CreateSession(ctx, parent.ID, expires)
	if err != nil {
		t.Fatal(err)
	}
	if after := s.latest(t); after != before {
		t.Errorf("making sessions has written to the store: revision %d became %d", before, after)
	}
	if len(key.ID) != 20 || len(key.Secret.Reveal()) != 40 || key.ID == second.ID || key.Secret.Equal(second.Secret) || strings.Contains(token, key.Secret.Reveal()) {
		t.Errorf("key %s, token %s", key.ID, token)
	}
	s.Close()
	s = open(t, config)
	for name, server := range map[string]*Store{"after a restart": s, "another server": replica} {
		found, err := server.SessionKey(ctx, key.ID, token)
		want := iam.Principal{Account: account, Kind: iam.Proxy, AccessKeyID: key.ID, Resource: "mesh/m/virtualNode/n"}
		if err != nil || found.Principal != want || !found.Secret.Equal(key.Secret) || !found.Expires.Equal(expires) || found.ID != key.ID {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	for name, pair := range map[string][2]string{
		"no token":                {key.ID, ""},
		"the token of another":    {second.ID, token},
		"with the key it is from": {parent.ID, token},
		"cut short":               {key.ID, token[:len(token)-1]},
		"longer":                  {key.ID, token + "A"},
		"padded":                  {key.ID, token + "=="},
		"with a line break":       {key.ID, token[:10] + "\n" + token[10:]},
		"twice":                   {key.ID, token + token},
		"too long":                {key.ID, strings.Repeat("A", maxToken+1)},
		"the sealed parent key":   {key.ID, tokenEncoding.EncodeToString(sealedAt(t, s, dirAccessKey+parent.ID))},
	} {
		if k, err := s.SessionKey(ctx, pair[0], pair[1]); !errors.Is(err, iam.ErrUnknownKey) || k.Secret.Reveal() != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range token {
		altered := []byte(token)
		altered[i] = map[bool]byte{true: 'B', false: 'A'}[altered[i] == 'A']
		if _, err := s.SessionKey(ctx, key.ID, string(altered)); !errors.Is(err, iam.ErrUnknownKey) {
			t.Errorf("character %d altered: %v", i, err)
		}
	}
	if _, _, err := s.CreateSession(ctx, key.ID, expires); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("a session makes a session: %v", err)
	}
	if err := s.DeleteProxyKey(ctx, parent.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SessionKey(ctx, key.ID, token); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("the session outlives its key: %v", err)
	}
	if _, _, err := s.CreateSession(ctx, parent.ID, expires); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("a deleted key makes a session: %v", err)
	}
}

// sealedAt is what lies at a key of etcd.
func sealedAt(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	response, err := s.client.Get(bounded(t), key)
	if err != nil || len(response.Kvs) != 1 {
		t.Fatalf("read %s: %v", key, err)
	}
	return response.Kvs[0].Value
}

// FuzzSessionToken: whatever a client sends as a token, it opens nothing but
// what was sealed.
func FuzzSessionToken(f *testing.F) {
	seal, err := newSealer(1, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	s := &Store{seal: seal, cache: newCache(nil, seal, slog.New(slog.DiscardHandler))}
	parent := newKey(keyPrefix, iam.Principal{Account: account, Kind: iam.Root})
	s.cache.keys[parent.ID] = parent
	key, token, err := s.CreateSession(f.Context(), parent.ID, time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{token, token[1:], token + "\n", "", "AQ", strings.Repeat("A", 200), strings.ToLower(token)} {
		f.Add(key.ID, seed)
		f.Add(parent.ID, seed)
	}
	f.Fuzz(func(t *testing.T, id, sent string) {
		found, err := s.SessionKey(t.Context(), id, sent)
		switch good := id == key.ID && sent == token; {
		case good && (err != nil || !found.Secret.Equal(key.Secret) || found.Principal.Kind != iam.Root):
			t.Fatalf("the token itself: %+v, %v", found, err)
		case !good && !errors.Is(err, iam.ErrUnknownKey):
			t.Fatalf("%q with %q: %+v, %v", id, sent, found, err)
		}
	})
}
