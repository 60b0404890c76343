package hostile

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// script is an executable in place of Envoy.
func script(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return path
}

const saysVersion = "[ \"$1\" = --version ] && { echo 'envoy version: 0/1.40.0/Clean/RELEASE/BoringSSL'; exit 0; }\n"

// cpu is the processor time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:15] { // with the children's
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// TestBadEnvoy: an Envoy that is none, or does not stay, makes the agent say so;
// it neither hangs nor spins.
func TestBadEnvoy(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	start := func(t *testing.T, envoy string, env ...string) *meshtest.Agent {
		return meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, ""), Key: ptr(v.ProxyCredentials(t, serverNode)),
			Env: append([]string{"ENVOY_BIN=" + envoy}, env...)})
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("\x7fELF garbage"), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ envoy, says string }{
		"missing":         {"/nowhere/envoy", "ENVOY_BIN"},
		"a directory":     {t.TempDir(), "ENVOY_BIN"},
		"not executable":  {text, "ENVOY_BIN"},
		"no program":      {garbage, "exec format error"},
		"another program": {"/bin/true", "version"},
		"fails at once":   {script(t, "echo 'wrong libc' >&2; exit 127"), "wrong libc"},
		"never answers":   {script(t, "sleep 600"), "version"},
	} {
		t.Run(name, func(t *testing.T) {
			agent := start(t, test.envoy)
			select {
			case <-agent.Exited():
			case <-time.After(25 * time.Second):
				t.Fatal("the agent neither works nor ends")
			}
			if log := agent.Log(); !strings.Contains(log, test.says) || strings.Contains(log, "goroutine ") {
				t.Errorf("want %q in:\n%s", test.says, log)
			}
		})
	}
	t.Run("dies again and again", func(t *testing.T) {
		agent := start(t, script(t, saysVersion+"exit 3"))
		const deaths = 6
		pause := regexp.MustCompile(`Envoy ended.* pause=(\S+)`)
		var pauses [][]string
		meshtest.Eventually(t, time.Minute, func(context.Context) error {
			if pauses = pause.FindAllStringSubmatch(agent.Log(), -1); len(pauses) < deaths {
				return fmt.Errorf("Envoy died %d times:\n%s", len(pauses), agent.Log())
			}
			return nil
		})
		for i, p := range pauses[:deaths] {
			if waits, err := time.ParseDuration(p[1]); err != nil || waits < 50*time.Millisecond<<i {
				t.Errorf("pause %d is %s (%v), at least %s is wanted", i, waits, err, 50*time.Millisecond<<i)
			}
		}
		if n := strings.Count(agent.Log(), "\n"); n > 20*deaths {
			t.Errorf("%d lines for %d deaths:\n%s", n, deaths, agent.Log())
		}
		if used := cpu(t, agent.PID()); used > 2*time.Second {
			t.Errorf("the agent used %s of processor time for %d deaths", used, deaths)
		}
		if _, err := agent.Admin(t.Context(), "/ready"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("/ready: %v", err)
		}
		if code := agent.Terminate(t); code != 0 {
			t.Errorf("it ended with %d", code)
		}
	})
	t.Run("dies too often", func(t *testing.T) {
		agent := start(t, script(t, saysVersion+"exit 3"), "APPNET_ENVOY_RESTART_COUNT=2")
		select {
		case <-agent.Exited():
		case <-time.After(25 * time.Second):
			t.Fatal("the agent goes on")
		}
		if !strings.Contains(agent.Log(), "after 2 restarts") {
			t.Error(agent.Log())
		}
	})
	t.Run("ignores SIGTERM", func(t *testing.T) {
		agent := start(t, script(t, saysVersion+"trap '' TERM; while :; do sleep 1; done"))
		meshtest.Eventually(t, 10*time.Second, func(context.Context) error {
			if !strings.Contains(agent.Log(), "Envoy started") {
				return fmt.Errorf("no Envoy: %s", agent.Log())
			}
			return nil
		})
		if code := agent.Terminate(t); code != 0 {
			t.Errorf("it ended with %d", code)
		}
	})
	v.noPanic(t)
}

func ptr[T any](v T) *T { return &v }

// TestPortsInUse: an address that somebody else has is named, with the variable
// that changes it.
func TestPortsInUse(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	for port, variable := range map[int]string{9901: "ENVOY_ADMIN_ACCESS_PORT", 9902: "APPNET_AGENT_HTTP_PORT"} {
		address := network.Address(t, "")
		taken, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: address})
		select {
		case <-agent.Exited():
		case <-time.After(25 * time.Second):
			t.Fatalf("port %d: the agent goes on", port)
		}
		if log := agent.Log(); !strings.Contains(log, variable) || !strings.Contains(log, "address already in use") {
			t.Errorf("port %d:\n%s", port, log)
		}
	}
	// The node's own port, which Envoy cannot have: the agent stays and says so.
	address := network.Address(t, "")
	taken, err := net.Listen("tcp", address+":8080")
	if err != nil {
		t.Fatal(err)
	}
	agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: address})
	meshtest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
		page, err := agent.Status(ctx, "/status")
		if err != nil {
			return err
		}
		if !strings.Contains(page, "8080") || !strings.Contains(page, "NOT_READY") {
			return fmt.Errorf("the taken port is not named:\n%s", page)
		}
		return nil
	})
	taken.Close() //nolint:errcheck // nobody used it
}

// TestTerminatedWhileStarting: a signal at any moment of the start ends the agent
// soon, with its Envoy and its sockets.
func TestTerminatedWhileStarting(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	key := v.ProxyCredentials(t, serverNode)
	state, temporary := t.TempDir(), t.TempDir()
	for i := range 15 {
		agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, ""), Key: &key, StateDir: state, Env: []string{"TMPDIR=" + temporary}})
		pause := time.Duration(i)*60*time.Millisecond + rand.N(50*time.Millisecond)
		select {
		case <-time.After(pause): // the moment is what is tested
		case <-agent.Exited():
		}
		// Before Go has set up its signals the kernel's default ends it.
		if code := agent.Terminate(t); code != 0 && code != -1 {
			t.Errorf("after %s it ended with %d:\n%s", pause, code, agent.Log())
		}
	}
	meshtest.Eventually(t, 10*time.Second, func(context.Context) error {
		if left, err := filepath.Glob(temporary + "/*"); err != nil || len(left) > 0 {
			return fmt.Errorf("left over: %v, %v", left, err)
		}
		return nil
	})
}

// TestAgentAddresses: 9901 and 9902 serve what is documented, to programs of this
// host and not to web pages; Envoy's own admin is behind a socket that only its
// user can open.
func TestAgentAddresses(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	temporary := t.TempDir()
	app := meshtest.StartApp(t, "app")
	agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, ""), Apps: map[int]int{8080: app.Port}, Env: []string{"TMPDIR=" + temporary}})
	agent.WaitReady(t)

	for _, test := range []struct {
		port             int
		line, host, more string
		want             int
	}{
		{9901, "GET /ready", "localhost", "", 200}, {9901, "GET /server_info", "127.0.0.1:9901", "", 200}, {9901, "GET /stats?usedonly", "[::1]", "", 200},
		{9901, "GET /certs", "localhost", "", 200},
		{9901, "GET /config_dump", "localhost", "", 403}, {9901, "POST /quitquitquit", "localhost", "", 403}, {9901, "POST /drain_listeners", "localhost", "", 403},
		{9901, "GET /config_dump?include_eds", "localhost", "", 403}, {9901, "GET //config_dump", "localhost", "", 404}, {9901, "GET /stats/../config_dump", "localhost", "", 404},
		{9901, "GET /%63onfig_dump", "localhost", "", 403}, {9901, "GET /stats%2f..%2fconfig_dump", "localhost", "", 404}, {9901, "GET /stats;/config_dump", "localhost", "", 404},
		{9901, "GET /config_dump/", "localhost", "", 404}, {9901, "GET http://localhost/config_dump", "localhost", "", 403}, {9901, "GET /", "localhost", "", 404},
		{9901, "POST /stats", "localhost", "", 405}, {9901, "POST /reset_counters", "localhost", "", 403}, {9901, "POST /logging?level=trace", "localhost", "", 403},
		{9901, "GET /stats", "localhost", "X-HTTP-Method-Override: POST\r\nX-Envoy-Original-Path: /quitquitquit\r\n", 200},
		{9901, "GET /runtime", "localhost", "", 403}, {9901, "GET /heap_dump", "localhost", "", 403}, {9901, "GET /some_new_page", "localhost", "", 404},
		{9901, "GET /stats", "evil.example", "", 403}, {9901, "GET /stats", "127.0.0.1.evil.example", "", 403}, {9901, "GET /stats", "localhost", "Origin: http://evil.example\r\n", 403},
		{9902, "GET /status", "localhost", "", 200}, {9902, "GET /status", "evil.example", "", 403}, {9902, "POST /enableLogging?level=trace", "localhost", "Origin: null\r\n", 403},
		{9902, "POST /drain_listeners", "localhost", "", 400}, {9902, "GET /drain_listeners?inboundonly", "localhost", "", 405}, {9902, "GET /../config_dump", "localhost", "", 404},
		{9902, "POST /enableLogging?level=trace%26paths%3d..", "localhost", "", 400},
	} {
		response := raw(t, agent.Options.Address+":"+strconv.Itoa(test.port), test.line+" HTTP/1.1\r\nHost: "+test.host+"\r\n"+test.more+"Connection: close\r\n\r\n")
		if response == nil {
			t.Errorf("%d %s, Host %s: no answer", test.port, test.line, test.host)
			continue
		}
		if response.StatusCode != test.want && !(test.want == 404 && response.StatusCode/100 == 3) {
			t.Errorf("%d %s, Host %s: %d, want %d", test.port, test.line, test.host, response.StatusCode, test.want)
		}
		if response.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %s: web pages may read it", test.port, test.line)
		}
	}

	// Slow and silent connections to both are closed.
	var slow []net.Conn
	for _, port := range []string{":9901", ":9902"} {
		for i, conn := range connect(t, agent.Options.Address+port, 100) {
			if i%2 == 0 {
				if _, err := io.WriteString(conn, "GET /status HTTP/1.1\r\nX-Slow: "); err != nil {
					t.Fatal(err)
				}
			}
			slow = append(slow, conn)
		}
	}
	closedWithin(t, slow, 20*time.Second)
	agent.WaitReady(t)

	// What lies in the file system.
	sockets := 0
	err := filepath.WalkDir(temporary, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case path == temporary:
		case mode.IsDir() && mode.Perm() != 0o700, !mode.IsDir() && mode.Perm() != 0o600:
			t.Errorf("%s: %s", path, mode)
		case mode.Type() == os.ModeSocket:
			sockets++
		}
		return nil
	})
	if err != nil || sockets != 2 {
		t.Errorf("%d sockets, %v; want Envoy's admin and the agent's", sockets, err)
	}

	// Nothing else is served on TCP: what Envoy and the agent listen on is known.
	for _, port := range listening(t, agent.PID(), agent.EnvoyPID(t)) {
		switch port {
		case 9901, 9902, 8080, 15001:
		default:
			t.Errorf("port %d is open", port)
		}
	}
	v.healthy(t, 10*time.Second)
}

// listening are the TCP ports that processes listen on.
func listening(t testing.TB, pids ...int) (ports []int) {
	t.Helper()
	inodes := map[string]bool{}
	for _, pid := range pids {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil {
				continue // closed meanwhile
			}
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				inodes[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			continue // no IPv6
		}
		for _, line := range strings.Split(string(table), "\n") {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !inodes[fields[9]] {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, int(port))
		}
	}
	return ports
}

// TestAgentKeepsItsSecrets: the agent's credentials are in no page, no log, no
// file and not in Envoy's environment.
func TestAgentKeepsItsSecrets(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{Debug: true})
	network := meshtest.NewNetwork(t)
	key := v.ProxyCredentials(t, serverNode)
	temporary, state := t.TempDir(), t.TempDir()
	agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, ""), Key: &key, StateDir: state,
		Env: []string{"TMPDIR=" + temporary, "ENVOY_LOG_LEVEL=debug", "APPNET_AGENT_LOGGING_LEVEL=debug", "AWS_SESSION_TOKEN="}})
	agent.WaitReady(t)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", agent.EnvoyPID(t)))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"Envoy's environment": string(environ), "the agent's log": agent.Log(), "the server's log": v.Log()}
	for _, page := range []string{"/server_info", "/stats", "/clusters", "/listeners", "/certs"} {
		if texts["9901"+page], err = agent.Admin(t.Context(), page); err != nil {
			t.Error(err)
		}
	}
	if texts["/status"], err = agent.Status(t.Context(), "/status"); err != nil {
		t.Error(err)
	}
	dump, err := envoyAdmin(t, temporary, "/config_dump?include_eds")
	if err != nil {
		t.Fatal(err)
	}
	texts["Envoy's configuration"] = dump
	for _, dir := range []string{temporary, state} {
		addFiles(t, texts, dir)
	}
	findSecret(t, texts, key.Secret)
	// What is on the disk is whole and the agent's alone.
	info, err := os.Stat(filepath.Join(state, "config.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// A crash report tells no more.
	agent.Signal(syscall.SIGQUIT)
	<-agent.Exited()
	findSecret(t, map[string]string{"the crash report": agent.Log()}, key.Secret)
}

// envoyAdmin reads a page of Envoy's real admin.
func envoyAdmin(t testing.TB, temporary, page string) (string, error) {
	t.Helper()
	found, err := filepath.Glob(temporary + "/*/admin.sock")
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("sockets %v, %w", found, err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", found[0])
	}}}
	response, err := client.Get("http://envoy" + page)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
