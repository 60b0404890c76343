package outage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// wrongStore is a case: the server comes back with less than it had. It is told
// in the order of the fields.
type wrongStore struct {
	name string
	// prepare runs before late.local is made and web is changed, of which some
	// stores know nothing.
	prepare func(testing.TB)
	// damage is done to the store while the server is away.
	damage func(testing.TB)
	// since runs when the server is back, and the proxies do not reach it yet.
	since func(testing.TB)
	// refused is what the server's log says of proxies whose streams it ends.
	refused string
	// recover is what the operator does about that, with the API alone.
	recover func(testing.TB)
	// held are the proxies that are connected then and sent nothing, and what
	// the operator reads of each.
	held map[string]string
	// lost: late.local is gone, once the operator has let the held proxies shrink.
	lost bool
}

const (
	// holdFor is how long proxies that are refused or held are watched.
	holdFor = 3 * time.Second
	// refusedReturn is what a proxy that was refused gets to be connected again:
	// its pauses have grown to half a minute.
	refusedReturn = 45 * time.Second
)

// The server comes back with a store that is older, or has lost a part, or all:
// proxies lose nothing, operators are told, and decide. Without the guard the
// second case must fail (tools/teeth.txt).
func TestServerComesBackWithLess(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, c := range s.wrongStores() {
		if !t.Run(c.name, func(t *testing.T) { s.comesBackWith(t, c) }) {
			return // the next case begins where this one was to end
		}
	}
}

// withoutServices is half a store: all that the client needs for late.local and
// plain.local is lost, and nothing of what it needs for the others. (A TCP
// service more or less changes the addresses of the client's listener in direct
// mode, where Envoy resets the connections that it has not accepted yet.)
func (s *scene) withoutServices(changesToo bool) wrongStore {
	lost := func(path string) bool {
		return strings.HasPrefix(path, "virtualService/") && !strings.HasSuffix(path, "/hello.local") && !strings.HasSuffix(path, "/raw.local") ||
			strings.HasPrefix(path, "virtualRouter/") && strings.HasSuffix(path, "/plain") ||
			strings.HasPrefix(path, "route/") && strings.Contains(path, "/plain/")
	}
	return wrongStore{
		damage: func(t testing.TB) { forget(t, s.server.DataDir, changesToo, lost) },
		held:   map[string]string{clientResource: "no change record explains why these are gone: .*virtualService/|the store is older"},
		lost:   true,
	}
}

func (s *scene) wrongStores() []wrongStore {
	backup := ""
	older := `the proxy's configuration is of revision \d+, the store's mesh is at \d+: the store is older`
	another := `made from another store \(lineage `
	without, withoutTraces := s.withoutServices(false), s.withoutServices(true)
	without.name = "half of it: services and routers are lost, their change records are left"
	withoutTraces.name = "half of it: services and routers are lost with their change records"
	return []wrongStore{
		{
			name:    "an older one",
			prepare: func(t testing.TB) { backup = s.backup(t) },
			damage:  func(testing.TB) { s.server.DataDir = backup },
			held:    map[string]string{clientResource: older, webResource: older},
			lost:    true,
		},
		{
			name:    "an older one that was changed since, and whose revision is ahead again",
			prepare: func(t testing.TB) { backup = s.backup(t) },
			damage:  func(testing.TB) { s.server.DataDir = backup },
			since:   s.makeAndDelete,
			held: map[string]string{
				clientResource: "no change record explains why these are gone: virtualService/late.local; the store has older records than those .*: virtualNode/client at ",
				webResource:    "the store has older records than those .*: virtualNode/web at ",
			},
			lost: true,
		},
		{
			name:    "a backup that was restored: older, and another store",
			prepare: func(t testing.TB) { backup = s.backupByCommand(t) },
			damage:  func(t testing.TB) { s.server.DataDir = s.restore(t, backup) },
			held:    map[string]string{clientResource: another, webResource: another},
			lost:    true,
		},
		without,
		withoutTraces,
		{
			name: "half of it: virtual nodes are lost",
			damage: func(t testing.TB) {
				forget(t, s.server.DataDir, false, func(path string) bool { return strings.HasPrefix(path, "virtualNode/") })
			},
			refused: "no change record explains why .* is gone",
			recover: s.apply,
		},
		{
			name:    "an empty one, of which the proxies' credentials are left",
			prepare: func(t testing.TB) { backup = s.backupByCommand(t) },
			damage: func(t testing.TB) {
				s.server.DataDir = s.restore(t, backup) // with a lineage of its own
				forget(t, s.server.DataDir, true, func(string) bool { return true })
			},
			refused: another,
			recover: s.makeAnew,
			held:    map[string]string{clientResource: another, webResource: another},
			lost:    true,
		},
		{
			name:    "a new one",
			damage:  func(t testing.TB) { s.server.DataDir = s.server.EmptyData(s.lane) },
			refused: "code=Unauthenticated",
			recover: func(t testing.TB) {
				s.makeAnew(t)
				s.newCredentials(t, clientResource)
				s.newCredentials(t, webResource)
			},
			held: map[string]string{clientResource: another, webResource: another},
			lost: true,
		},
	}
}

// backup copies the data of the server.
func (s *scene) backup(t testing.TB) (dir string) {
	t.Helper()
	s.server.Terminate(t)
	dir = s.server.CopyData(s.lane)
	s.server.Restart(t)
	s.settled(t)
	return dir
}

// backupByCommand backs up the server while it runs.
func (s *scene) backupByCommand(t testing.TB) (file string) {
	t.Helper()
	file = filepath.Join(s.lane.TempDir(), "backup")
	if _, err := s.server.Fairlead(t, "backup", "--output-file", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// restore makes a data directory of a backup, with what is not in one.
func (s *scene) restore(t testing.TB, backup string) (dir string) {
	t.Helper()
	dir = s.lane.TempDir()
	for _, name := range []string{"kek", "server-ca.pem", "server-ca.key"} {
		content, err := os.ReadFile(filepath.Join(s.server.DataDir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.server.Fairlead(t, "restore", "--data-dir", dir, backup); err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeAndDelete writes more often than anything was written after backup.
func (s *scene) makeAndDelete(t testing.TB) {
	t.Helper()
	for range 10 {
		s.server.Apply(t, "mesh: m\nvirtualNode: other\nspec: {}\n---\n{virtualNode: other, spec: null}")
	}
}

// makeAnew makes the mesh as it was at first.
func (s *scene) makeAnew(t testing.TB) {
	t.Helper()
	s.services = nil
	s.apply(t)
}

func (s *scene) comesBackWith(t *testing.T, c wrongStore) {
	if s.accepted {
		s.server.Kill()
		expire(t, s.server.DataDir)
		s.server.Restart(s.during(t))
		s.accepted = false
	}
	s.apply(t)
	s.ready(t)
	s.settled(t)
	if c.prepare != nil {
		c.prepare(s.during(t))
	}
	s.changes++
	s.server.Apply(t, s.webNode())
	s.newService(t, "late.local")
	meshtest.Eventually(t, changeWithin, func(context.Context) error { return s.get("late.local:8080", "/load") })
	s.settled(t)

	streams := s.streams()
	left := startLoad(streams[0], streams[1], streams[3])
	defer left.stop(t)
	lost := startLoad(streams[2], stream{"late service", s.client.At(15001, "/load"), "late.local:8080", 25, false})
	lostEnds := false
	defer func() {
		if !lostEnds { // the case has failed
			lost.stop(t)
		}
	}()

	s.server.Kill()
	over := time.After(outage)
	c.damage(s.during(t))
	<-over
	if c.since != nil {
		s.link.Cut()
	}
	s.server.Restart(s.during(t))
	if c.since != nil {
		c.since(t)
		s.link.Restore()
	}
	if c.refused != "" {
		s.refused(t, c.refused)
		<-time.After(holdFor)
	}
	if c.recover != nil {
		c.recover(t)
	}
	for resource, why := range c.held {
		s.held(t, resource, why, lost)
	}
	if len(c.held) > 0 {
		<-time.After(holdFor)
	}
	s.bothReady(t)
	lostEnds = true
	lost.stop(t)
	for resource := range c.held {
		s.accepted = true
		if _, err := s.server.Fairlead(t, "proxy", "accept-shrink", resource); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	s.settled(t)
	t.Logf("the proxies hold what the store says after %s", time.Since(began).Round(time.Millisecond))
	if c.lost {
		s.services = nil
		s.gone(t, "late.local")
	}
	s.nextChange(t)
}

// refused waits until the server has raised an alarm of both proxies, and their
// agents say why they are not connected.
func (s *scene) refused(t testing.TB, why string) {
	t.Helper()
	alarm := regexp.MustCompile(why)
	meshtest.Eventually(t, returnWithin, func(ctx context.Context) error {
		if !alarm.MatchString(s.server.Log()) {
			return fmt.Errorf("the server's log does not say %q", why)
		}
		for _, a := range []*meshtest.Agent{s.client, s.web} {
			status, err := statusOf(ctx, a)
			if err != nil {
				return err
			}
			if status.Connection != "NOT_CONNECTED" || !strings.Contains(status.NotConnected, "does not serve") && !strings.Contains(status.NotConnected, "does not accept") {
				return fmt.Errorf("%s: %+v", a.Name, status)
			}
		}
		return nil
	})
}

// held waits until an operator can see that a proxy is held, and why. If the
// load fails meanwhile, there is nothing to wait for.
func (s *scene) held(t testing.TB, resource, why string, load *load) {
	t.Helper()
	reason := regexp.MustCompile(why)
	meshtest.Eventually(t, refusedReturn, func(context.Context) error {
		if !load.lastFailure().IsZero() {
			t.Fatalf("%s is not held: its requests fail", resource)
		}
		proxies, err := s.server.Proxies(t)
		if err != nil {
			return err
		}
		for _, p := range proxies {
			if p.Resource == resource && reason.MatchString(p.Held) {
				return nil
			}
		}
		return fmt.Errorf("%s is not held for %q: %+v", resource, why, proxies)
	})
	text, err := s.server.Fairlead(t, "proxy", "list")
	if err != nil || !regexp.MustCompile(resource+` .* held: .*(`+why+`)`).Match(text) {
		t.Errorf("proxy list (%v):\n%s", err, text)
	}
	if alarm := regexp.MustCompile(`level=ERROR .*held: .*` + resource + `.*(` + why + `)`); !alarm.MatchString(s.server.Log()) {
		t.Errorf("the server's log has no alarm of %s", resource)
	}
	if page, err := s.server.Get(t.Context(), "/metrics"); err != nil || strings.Contains(page, "fairlead_xds_held_proxies 0\n") {
		t.Errorf("no metric of held proxies (%v)", err)
	}
}

// agentStatus is what matters here of an agent's page /status.
type agentStatus struct {
	Connection   string `json:"managementServerConnectionStatus"`
	NotConnected string `json:"notConnected"`
	Held         string `json:"held"`
	Lineage      string `json:"lineage"`
	NotReady     []string
	Closed       []struct {
		Secret string
		Closes []string
		Why    string
	}
}

func statusOf(ctx context.Context, a *meshtest.Agent) (status agentStatus, err error) {
	page, err := a.Status(ctx, "/status")
	if err != nil {
		return status, err
	}
	err = json.Unmarshal([]byte(page), &status)
	return status, err
}
