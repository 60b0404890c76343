//go:build root

package redirect

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enterNamespace puts the test into a network namespace of its own, with an
// interface through which 10.9.0.0/24 is reached. The thread is never given
// back: it ends with the test's goroutine, and the namespace with it.
func enterNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	for _, command := range []string{
		"ip link set lo up",
		"ip link add mesh0 type veth peer name mesh1",
		"ip address add 10.9.0.1/24 dev mesh0",
		"ip link set mesh0 up",
		"ip link set mesh1 up",
		"ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev mesh0",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
}

// echo accepts connections on a port of the loopback address and says a word.
func echo(t *testing.T, port int, word string) {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, word) //nolint:errcheck // the test sees it
			conn.Close()
		}
	}()
}

// dial says who answers at an address.
func dial(address string) string {
	conn, err := net.DialTimeout("tcp4", address, time.Second)
	if err != nil {
		return "nobody"
	}
	defer conn.Close()
	word, _ := io.ReadAll(conn)
	return string(word)
}

func status(t *testing.T) (string, bool) {
	t.Helper()
	var out bytes.Buffer
	enabled, err := Status(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), enabled
}

// TestRedirect shows in a network namespace that traffic really takes the
// way through Envoy's ports, however often the rules are set, and no longer
// when they are gone.
func TestRedirect(t *testing.T) {
	enterNamespace(t)
	echo(t, 15001, "egress")
	config, err := Parse(variables(map[string]string{EnvIgnoreUID: "1337", EnvAppPorts: "8080", EnvEgressIgnoredPorts: "81", EnvEnableIPv6: "1"}))
	if err != nil {
		t.Fatal(err)
	}
	if out, enabled := status(t); enabled {
		t.Fatalf("redirected before enable:\n%s", out)
	}
	var first string
	for round := range 3 {
		if err := Enable(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		out, enabled := status(t)
		if !enabled || round > 0 && out != first {
			t.Fatalf("enable is not idempotent; round %d:\n%s\nwas:\n%s", round, out, first)
		}
		first = out
	}
	t.Log(first)
	for address, want := range map[string]string{
		"10.9.0.2:80":     "egress", // out of the host
		"10.9.0.2:81":     "nobody", // a port that is left alone
		"10.9.0.2:22":     "nobody", // SSH always is
		"127.0.0.1:15001": "egress", // dialled itself
		"127.0.0.1:80":    "nobody", // within the host
	} {
		if got := dial(address); got != want {
			t.Errorf("%s is answered by %s, want %s", address, got, want)
		}
	}
	// A second jump, as the route manager's script left them, goes too.
	if out, err := exec.Command("iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", EgressChain).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config.IPv6 = false
	if err := Enable(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if out, _ := status(t); strings.Count(out, "-j "+EgressChain) != 1 || !strings.Contains(out, "IPv6: disabled") {
		t.Errorf("after enable without IPv6 over a doubled jump:\n%s", out)
	}
	for range 2 {
		if err := Disable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if out, enabled := status(t); enabled || out != "IPv4: disabled\nIPv6: disabled\n" {
		t.Errorf("after disable:\n%s", out)
	}
	if got := dial("10.9.0.2:80"); got != "nobody" {
		t.Errorf("after disable 10.9.0.2:80 is answered by %s", got)
	}
}
