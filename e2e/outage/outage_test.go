package outage

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// The server goes away and comes back as it was. Nobody notices but the agents.
func TestServerComesBackAsItWas(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, c := range []struct {
		name       string
		away, back func(testing.TB)
		// meanwhile is changed while the server is cut off but alive.
		meanwhile bool
	}{
		{"killed",
			func(testing.TB) { s.server.Kill() },
			func(t testing.TB) { s.server.Restart(t) }, false},
		{"stopped (SIGSTOP)",
			func(testing.TB) { s.server.Stop() },
			func(testing.TB) { s.server.Continue() }, false},
		{"cut off: packets vanish",
			func(testing.TB) { s.link.Freeze() },
			func(testing.TB) { s.link.Restore() }, true},
		{"cut off: connections break",
			func(testing.TB) { s.link.Cut() },
			func(testing.TB) { s.link.Restore() }, true},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			s.newService(t, "short-lived.local")
			s.settled(t)
			before := s.handshakes(t)
			load := startLoad(s.streams()...)
			defer func() {
				load.stop(t)
				if made, tcp := s.handshakes(t)-before, load.tally[3]; made < int64(tcp.served) {
					t.Errorf("%d handshakes for %d requests of the stream %q", made, tcp.served, tcp.name)
				}
			}()
			c.away(s.during(t))
			deleted := ""
			if c.meanwhile {
				deleted = s.dropService(t)
			}
			<-time.After(outage)
			s.bothReady(t)
			c.back(s.during(t))
			began := time.Now()
			s.settled(t)
			if took := time.Since(began); took > returnWithin {
				t.Errorf("the proxies were back after %s", took)
			} else {
				t.Logf("the proxies were back after %s", took.Round(time.Millisecond))
			}
			// A deletion that the agents have missed has a change record.
			if deleted == "" {
				deleted = s.dropService(t)
			}
			s.gone(t, deleted)
			s.nextChange(t)
		})
		if !ok {
			return // the next case begins where this one was to end
		}
	}
}

// While the server is away, a proxy restarts: Envoy alone gets everything from
// its agent's memory, both of them get it from the disk.
func TestProxiesRestartMeanwhile(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	envoyOf := func(a *meshtest.Agent) func(t testing.TB) {
		return func(t testing.TB) { killEnvoy(t, a) }
	}
	both := func(agents ...*meshtest.Agent) func(t testing.TB) {
		return func(t testing.TB) {
			for _, a := range agents {
				a.KillAll()
			}
			for _, a := range agents {
				a.Start(t)
			}
		}
	}
	for _, c := range []struct {
		name    string
		restart func(testing.TB)
	}{
		{"the client's Envoy is killed", envoyOf(s.client)},
		{"the server node's Envoy is killed", envoyOf(s.web)},
		{"the client's agent and Envoy are killed", both(s.client)},
		{"all agents and Envoys are killed, as when their hosts start again", both(s.web, s.client)},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			load := startLoad(s.streams()...)
			s.server.Kill()
			<-time.After(outage / 2)
			gone := time.Now()
			c.restart(s.during(t))
			restarted := time.Now()
			<-time.After(outage / 2)
			s.bothReady(t)
			s.server.Restart(s.during(t))
			s.settled(t)
			s.nextChange(t)
			t.Logf("served again %s after the restart", load.lastFailure().Sub(restarted).Round(time.Millisecond))
			load.stopAllowing(t, gone, restarted.Add(servingWithin))
			onlyConfiguration(t, s.client.Options.StateDir, s.clientOwn.Key)
			onlyConfiguration(t, s.web.Options.StateDir, s.certificate.Key)
		})
		if !ok {
			return // the next case begins where this one was to end
		}
	}
}

// servingWithin is what a proxy gets to serve again after a restart.
const servingWithin = 5 * time.Second

// killEnvoy kills the Envoy of an agent, and waits until it has another one.
func killEnvoy(t testing.TB, a *meshtest.Agent) {
	t.Helper()
	old := a.EnvoyPID(t)
	process, err := os.FindProcess(old)
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		t.Fatalf("kill the Envoy of %s: %v", a.Name, err)
	}
	meshtest.Eventually(t, servingWithin, func(context.Context) error {
		if pid := a.EnvoyPID(t); pid == 0 || pid == old {
			return fmt.Errorf("the Envoy of %s is %d, it was %d", a.Name, pid, old)
		}
		return nil
	})
}

// onlyConfiguration checks that what an agent keeps on the disk is for its user
// alone, and has no key in it.
func onlyConfiguration(t *testing.T, dir, keyFile string) {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	encoded := []byte(base64.StdEncoding.EncodeToString(block.Bytes))
	configuration := false
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s is %v, want %v", path, got, want)
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if d.Name() == "config.json" {
			configuration = true
			content = append(content, resourcesIn(t, content)...)
		}
		for _, key := range [][]byte{[]byte("PRIVATE KEY"), block.Bytes, encoded[:40]} {
			if bytes.Contains(content, key) {
				t.Errorf("%s holds a key", path)
			}
		}
		return err
	})
	if err != nil || !configuration {
		t.Errorf("%s holds no configuration (%v)", dir, err)
	}
}

// resourcesIn decodes the resources in an agent's file.
func resourcesIn(t *testing.T, file []byte) (all []byte) {
	t.Helper()
	var saved struct {
		Resources []struct {
			Any []byte `json:"any"`
		} `json:"resources"`
	}
	if err := json.Unmarshal(file, &saved); err != nil {
		t.Fatal(err)
	}
	for _, r := range saved.Resources {
		all = append(all, r.Any...)
	}
	if !bytes.Contains(all, []byte("0.0.0.0_15")) {
		t.Error("the file holds no listener")
	}
	return all
}
