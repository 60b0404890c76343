package agent

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFront: what others may see of Envoy's admin, and who may look.
func TestFront(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	admin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("envoy " + r.URL.String())) })}
	go admin.Serve(listener)
	defer admin.Close()
	a := &Agent{admin: newEnvoyAdmin(Address{"unix", socket}), envoy: &supervisor{}, relay: newRelay(Config{}, nil, nil, time.Now)}
	for _, test := range []struct {
		method, url, host, origin string
		status                    int
		body                      string
	}{
		{"GET", "/stats?filter=ssl&usedonly", "127.0.0.1:9901", "", 200, "envoy /stats?filter=ssl&usedonly"},
		{"GET", "/stats/prometheus", "localhost:9901", "", 200, "envoy /stats/prometheus"},
		{"GET", "/clusters", "[::1]:9901", "", 200, "envoy /clusters"},
		{"HEAD", "/certs", "10.0.0.1", "", 200, ""},
		{"GET", "/ready", "127.0.0.1:9901", "", 503, "Envoy does not run"},
		{"POST", "/stats", "127.0.0.1:9901", "", 405, "only GET"},
		{"GET", "/config_dump", "127.0.0.1:9901", "", 403, "/config_dump is not served here"},
		{"POST", "/quitquitquit", "127.0.0.1:9901", "", 403, "not served here"},
		{"GET", "/stats/../config_dump", "127.0.0.1:9901", "", 404, "there are /ready"},
		{"GET", "//config_dump", "127.0.0.1:9901", "", 404, "there are /ready"},
		{"GET", "/stats%2fprometheus", "127.0.0.1:9901", "", 200, ""},
		{"GET", "/", "127.0.0.1:9901", "", 404, "there are /ready"},
		{"GET", "/stats", "evil.example:9901", "", 403, "neither an address nor localhost"},
		{"GET", "/stats", "127.0.0.1:9901", "http://evil.example", 403, "not for web pages"},
	} {
		r := httptest.NewRequest(test.method, test.url, nil)
		r.Host = test.host
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		w := httptest.NewRecorder()
		a.front().ServeHTTP(w, r)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s %s of %s: %d %q, want %d %q", test.method, test.url, test.host, w.Code, w.Body, test.status, test.body)
		}
	}
}

// TestAPI: what App Mesh's agent did on port 9902.
func TestAPI(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	admin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		w.Write([]byte("envoy_appmesh_RequestCount 1"))
	})}
	go admin.Serve(listener)
	defer admin.Close()
	config := Config{LoggingReset: time.Hour, Envoy: EnvoyConfig{LogLevel: "info"}}
	a := &Agent{config: config, now: time.Now, admin: newEnvoyAdmin(Address{"unix", socket}), envoy: &supervisor{},
		files: newFileSecrets(time.Now, nil), relay: newRelay(config, nil, nil, time.Now)}
	api := a.api()
	for _, test := range []struct {
		method, url string
		status      int
		body        string
		asked       string
	}{
		{"GET", "/status", 200, `"managementServerConnectionStatus": "NOT_CONNECTED"`, ""},
		{"POST", "/drain_listeners?inboundonly", 200, "", "POST /drain_listeners?inboundonly"},
		{"POST", "/drain_listeners?graceful", 400, "the query must be inboundonly", ""},
		{"GET", "/drain_listeners?inboundonly", 405, "", ""},
		{"POST", "/enableLogging?level=loud", 400, "level is one of", ""},
		{"POST", "/enableLogging?level=info", 304, "", ""},
		{"POST", "/enableLogging?level=critical", 200, "Envoy logs at level critical for 1h0m0s", "POST /logging?level=critical"},
		{"POST", "/enableLogging?level=debug", 304, "", ""},
		{"GET", "/stats/prometheus?usedonly", 200, "envoy_appmesh_RequestCount 1", "GET /stats/prometheus?usedonly&"},
		{"GET", "/stats/prometheus?filter=metrics_extension", 200, "RequestCount 1", "GET /stats/prometheus?filter=appmesh"},
		{"GET", "/stats/prometheus?filter=all", 400, "the only filter is metrics_extension", ""},
	} {
		asked = nil
		r := httptest.NewRequest(test.method, test.url, nil)
		r.Host = "127.0.0.1:9902"
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) || strings.Join(asked, " ") != test.asked {
			t.Errorf("%s %s: %d %q, asked Envoy %q; want %d %q %q", test.method, test.url, w.Code, w.Body, asked, test.status, test.body, test.asked)
		}
	}
}

func TestAdminOfFile(t *testing.T) {
	for content, want := range map[string]string{
		"admin:\n  address: {pipe: {path: /tmp/a.sock}}":                                     "unix /tmp/a.sock",
		"admin: {address: {socketAddress: {address: 127.0.0.1, portValue: 9901}}}\nnode: {}": "tcp 127.0.0.1:9901",
		"node: {id: x}": "it has no admin address",
		"admin: [":      "read Envoy's configuration",
	} {
		at, err := adminOfFile(write(t, "envoy.yaml", content))
		got := at.Network + " " + at.Address
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", content, got, want)
		}
	}
}

// TestRestarts: a limit that is set is kept, and the agent says what Envoy did.
func TestRestarts(t *testing.T) {
	s := &supervisor{binary: "/bin/false", limit: 2, log: discard(), out: &lockedBuffer{}}
	err := s.run(context.Background())
	if err == nil || err.Error() != "run Envoy: exit status 1, after 2 restarts (APPNET_ENVOY_RESTART_COUNT)" {
		t.Error(err)
	}
	if state := s.current(); state.Restarts != 2 || state.Pid != 0 || state.LastExit != "exit status 1" {
		t.Errorf("%+v", state)
	}
}

// TestReap: ended children are collected, but for the one that somebody waits for.
func TestReap(t *testing.T) {
	orphan, own := exec.Command("/bin/true"), exec.Command("/bin/true")
	for _, cmd := range []*exec.Cmd{orphan, own} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	self := os.Getpid()
	eventually(t, 5*time.Second, func() error {
		if !isZombieOf(orphan.Process.Pid, self) || !isZombieOf(own.Process.Pid, self) {
			return context.DeadlineExceeded
		}
		return nil
	})
	reapZombies(self, func() int { return own.Process.Pid })
	if isZombieOf(orphan.Process.Pid, self) {
		t.Error("the orphan is still there")
	}
	if err := own.Wait(); err != nil {
		t.Errorf("Envoy's end was taken from its supervisor: %v", err)
	}
	orphan.Wait() //nolint:errcheck // it has been collected
}
