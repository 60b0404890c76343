package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/mesh"
)

func sightingsOf(t *testing.T, s *Store, name mesh.Name) (all []mesh.Sighting) {
	t.Helper()
	if _, err := s.Read(bounded(t), func(tx *Tx) (err error) {
		all, err = tx.Sightings(name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSightings: what servers have seen lies under leases, so that it ends by itself;
// a server whose lease is lost is told to note everything again.
func TestSightings(t *testing.T) {
	s := open(t, Config{})
	ctx := bounded(t)
	one, other := s.NewSightings(), s.NewSightings()
	t.Cleanup(one.Close)
	t.Cleanup(other.Close)
	var news []mesh.Sighting
	for i := range 3*perNote + 7 {
		news = append(news, mesh.Sighting{Mesh: demo, Endpoint: nodeID("a/b"), Instance: string(rune('a'+i%26)) + "/" + time.Duration(i).String(), Server: "one", Since: time.Unix(int64(i), 0).UTC(), Rejected: []string{"secret s"}})
	}
	if err := one.Note(ctx, news); err != nil {
		t.Fatal(err)
	}
	gone := mesh.Sighting{Mesh: demo, Endpoint: mesh.ID{Kind: mesh.KindVirtualGateway, Name: "g"}, Instance: "127.0.0.1:1", Server: "other", Since: time.Unix(1, 0).UTC(), Ended: time.Unix(2, 0).UTC(), Revision: 7}
	if err := other.Note(ctx, []mesh.Sighting{gone}); err != nil {
		t.Fatal(err)
	}
	all := sightingsOf(t, s, demo)
	if len(all) != len(news)+1 {
		t.Fatalf("%d sightings, want %d", len(all), len(news)+1)
	}
	if diff := cmp.Diff(gone, all[len(all)-1]); diff != "" {
		t.Error(diff)
	}
	if n := len(sightingsOf(t, s, mesh.Name{Owner: account, Mesh: "dem"})); n != 0 {
		t.Errorf("%d sightings of another mesh", n)
	}
	leases, err := s.client.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for _, l := range leases.Leases {
		ttl, err := s.client.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil || ttl.GrantedTTL != int64(SeenFor/time.Second) {
			t.Errorf("a lease of %d s: %v", ttl.GrantedTTL, err)
		}
		keys += len(ttl.Keys)
	}
	if keys != len(all) {
		t.Errorf("%d of %d sightings are under a lease", keys, len(all))
	}
	// As if the server had not been heard of for long.
	if _, err := s.client.Revoke(ctx, one.lease); err != nil {
		t.Fatal(err)
	}
	if n := len(sightingsOf(t, s, demo)); n != 1 {
		t.Errorf("%d sightings stay of a server that is gone for long", n-1)
	}
	if err := one.Note(ctx, news[:1]); !errors.Is(err, ErrForgotten) {
		t.Errorf("noted under a lost lease: %v", err)
	}
	if err := one.Note(ctx, news); err != nil {
		t.Fatal(err)
	}
	if n := len(sightingsOf(t, s, demo)); n != len(news)+1 {
		t.Errorf("%d sightings after everything was noted again", n)
	}
}

// TestAwaited: what somebody waits for is in the cache of every server, also after the
// store was loaded again.
func TestAwaited(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	s := open(t, config)
	await := func(fn func(tx *Tx)) int64 {
		t.Helper()
		revision, err := s.Write(bounded(t), func(tx *Tx) error { fn(tx); return nil })
		if err == nil {
			err = s.WaitFor(bounded(t), revision)
		}
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	first := await(func(tx *Tx) { tx.Await("arn:a/b") })
	second := await(func(tx *Tx) { tx.Await("arn:c") })
	if got := s.Awaited(); got != second || got <= first {
		t.Errorf("awaited is %d, want %d", got, second)
	}
	s.Close()
	s = open(t, config)
	if got := s.Awaited(); got != second {
		t.Errorf("after a restart awaited is %d, want %d", got, second)
	}
	await(func(tx *Tx) { tx.StopAwaiting("arn:c") })
	if got := s.Awaited(); got != first {
		t.Errorf("awaited is %d, want %d", got, first)
	}
	if _, err := s.Read(bounded(t), func(tx *Tx) error {
		for name, want := range map[string]int64{"arn:a/b": first, "arn:c": 0} {
			if got, err := tx.AwaitedUnder(name); err != nil || got != want {
				t.Errorf("under %s %d is awaited, want %d: %v", name, got, want, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	await(func(tx *Tx) { tx.StopAwaiting("arn:a/b") })
	if got := s.Awaited(); got != 0 {
		t.Errorf("awaited is %d", got)
	}
}

// TestLead: one server leads at a time, and another one follows when it ends.
func TestLead(t *testing.T) {
	endpoint, _ := external(t, 0)
	led := make(chan string)
	start := func(name string) context.CancelFunc {
		s := open(t, Config{DataDir: t.TempDir(), Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)})
		ctx, end := context.WithCancel(t.Context())
		go s.Lead(ctx, "work", func(ctx context.Context) {
			led <- name
			<-ctx.Done()
			led <- name + " no more"
		})
		return end
	}
	next := func(want string) {
		t.Helper()
		select {
		case got := <-led:
			if got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody leads, want %s", want)
		}
	}
	endFirst := start("first")
	next("first")
	endSecond := start("second")
	endFirst()
	next("first no more")
	next("second")
	endSecond()
	next("second no more")
}

// BenchmarkSightings is what 10,000 proxies cost that all come, or acknowledge, at the
// same time, and one look at them.
func BenchmarkSightings(b *testing.B) {
	s := open(b, Config{})
	n := s.NewSightings()
	b.Cleanup(n.Close)
	var news []mesh.Sighting
	for i := range 10_000 {
		news = append(news, mesh.Sighting{Mesh: demo, Endpoint: nodeID(fmt.Sprint(i % 100)), Instance: fmt.Sprint(i), Server: "host/127.0.0.1:9481", Node: "mesh/demo/virtualNode/n", Address: "10.0.0.1:12345", Since: time.Now()})
	}
	b.Run("note", func(b *testing.B) {
		for b.Loop() {
			if err := n.Note(b.Context(), news); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Read(b.Context(), func(tx *Tx) error {
				all, err := tx.Sightings(demo)
				if err == nil && len(all) != len(news) {
					err = fmt.Errorf("%d sightings", len(all))
				}
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
