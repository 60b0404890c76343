package rotate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestRotateUnderLoad begins a rotation, pauses it, undoes it, and does it again to its
// end, while requests go on.
func TestRotateUnderLoad(t *testing.T) {
	s := newScene(t)
	s.proxies(t, s.leaf)
	before := s.handshakes(t)
	stop := s.load(t)
	_, err := s.rotate(t, "--detach")
	check(t, err)
	if st, err := s.rotate(t, "--pause"); err != nil || !st.Paused || st.Step == "done" {
		t.Fatalf("paused it is %+v: %v", st, err)
	}
	_, err = s.rotate(t, "--resume")
	check(t, err)
	s.reaches(t, "done")
	begun := time.Now()
	_, err = s.rotate(t, "--detach")
	check(t, err)
	s.reaches(t, "issue", "renew", "serve")
	st, err := s.rotate(t, "--undo")
	check(t, err)
	if !st.Undone {
		t.Errorf("undone it is %+v", st)
	}
	s.reaches(t, "done")
	t.Logf("a rotation that was undone took %s", time.Since(begun))
	begun = time.Now()
	_, err = s.rotate(t, "--detach")
	check(t, err)
	st = s.reaches(t, "done")
	t.Logf("a rotation took %s", time.Since(begun))
	if st.Undone {
		t.Errorf("at its end it is %+v", st)
	}
	stop()
	if after := s.handshakes(t); after-before < 100 {
		t.Errorf("%d handshakes during the load", after-before)
	}
}

func (s *scene) handshakes(t *testing.T) int64 {
	t.Helper()
	counters, err := s.web.Counters(t.Context(), `ssl\.handshake$`)
	check(t, err)
	return counters["listener.0.0.0.0_15000.ssl.handshake"]
}

// TestRotateKilled kills the server at every step, and each time it goes on.
func TestRotateKilled(t *testing.T) {
	s := newScene(t)
	s.proxies(t, s.leaf)
	stop := s.load(t)
	_, err := s.rotate(t, "--detach")
	check(t, err)
	for _, step := range []string{"trust", "issue", "renew", "serve", "withdraw"} {
		later := []string{"trust", "issue", "renew", "serve", "withdraw", "done"}
		for later[0] != step {
			later = later[1:]
		}
		st := s.reaches(t, later...)
		t.Logf("killed at %s", st.Step)
		s.server.Kill()
		s.server.Restart(t)
	}
	s.reaches(t, "done")
	stop()
}

// TestRemovalBites: an old root that is taken out by force is not taken any more, for
// connections that would resume a session neither; and nobody takes it out without
// being told what holds under it.
func TestRemovalBites(t *testing.T) {
	s := newScene(t)
	imported := s.imported(t)
	s.proxies(t, imported)
	meshtest.Eventually(t, within, func(context.Context) error { return s.imports().send(http.DefaultClient) })
	for range 5 {
		check(t, s.imports().send(http.DefaultClient))
	}
	if n, err := s.client.Counters(t.Context(), `ssl\.session_reused$`); err != nil || n["cluster.cds_egress_m_web_tcp_9002.ssl.session_reused"] == 0 {
		t.Errorf("no session was resumed, so that this tests nothing of it: %v %v", n, err)
	}
	_, err := s.rotate(t, "--detach")
	check(t, err)
	var st status
	meshtest.Eventually(t, within, func(context.Context) error {
		if st = s.reaches(t, "serve"); len(st.Certificates) == 0 {
			return errors.New("it waits for nothing")
		}
		return nil
	})
	if st.Certificates[0].Arn != imported || !strings.Contains(st.Certificates[0].Why, "imported") {
		t.Fatalf("it waits for %+v", st)
	}
	check(t, s.imports().send(http.DefaultClient))
	_, err = s.rotate(t, "--force", "--detach")
	check(t, err)
	s.reaches(t, "withdraw", "done")
	out := time.Now()
	meshtest.Eventually(t, 5*time.Second, func(context.Context) error {
		if s.imports().send(http.DefaultClient) == nil {
			return errors.New("a handshake with the old root succeeds")
		}
		return nil
	})
	t.Logf("refused %s after the old root was out", time.Since(out))
	for range 5 {
		if s.imports().send(http.DefaultClient) == nil {
			t.Error("a handshake with the old root succeeds again")
		}
	}
	for _, stream := range s.streams() {
		if err := stream.send(http.DefaultClient); err != nil {
			t.Errorf("%s: %v", stream.name, err)
		}
	}
	s.reaches(t, "done")
}

// TestStraggler: a proxy that acknowledges nothing is named, and nothing goes on without
// it; nor after the server was killed, when it is not connected at all. What is undone
// for its sake was never issued.
func TestStraggler(t *testing.T) {
	s := newScene(t)
	s.proxies(t, s.leaf)
	s.client.Stop()
	thaw := sync.OnceFunc(s.client.Continue)
	t.Cleanup(thaw)
	named := func() {
		t.Helper()
		meshtest.Eventually(t, within, func(context.Context) error {
			st := s.reaches(t, "trust")
			if len(st.Proxies) != 1 || st.Proxies[0].Proxy != "mesh/m/virtualNode/client" || st.Proxies[0].Server == "" {
				return fmt.Errorf("it waits for %+v", st.Proxies)
			}
			return nil
		})
	}
	_, err := s.rotate(t, "--detach")
	check(t, err)
	named()
	text, err := s.server.Fairlead(t, "ca", "rotate", s.root, "--status")
	check(t, err)
	if !strings.Contains(string(text), "waits for proxy mesh/m/virtualNode/client at ") {
		t.Errorf("it is shown as\n%s", text)
	}
	if _, err := s.rotate(t, "--detach"); err == nil || !strings.Contains(err.Error(), "is being rotated already, at the step trust") {
		t.Errorf("begun twice: %v", err)
	}
	s.server.Kill()
	s.server.Restart(t)
	named()
	_, err = s.rotate(t, "--undo", "--detach")
	check(t, err)
	thaw()
	if st := s.reaches(t, "done"); !st.Undone {
		t.Errorf("at its end it is %+v", st)
	}
	_, err = s.rotate(t, "--detach")
	check(t, err)
	s.reaches(t, "done")
	for _, stream := range s.streams() {
		check(t, stream.send(http.DefaultClient))
	}
}
