//go:build root

package mesh_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace: a host of its own on one wire with others.
// It ends with the last socket and process in it.
type namespace struct {
	name string
	file *os.File
}

// newNamespace makes one with nothing but its loopback interface.
func newNamespace(t *testing.T, name string) *namespace {
	t.Helper()
	n := &namespace{name: name}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err != nil {
		t.Fatalf("make network namespace %s: %v", name, err)
	}
	t.Cleanup(func() { n.file.Close() }) //nolint:errcheck // it was only read
	n.ip(t, "link set lo up")
	return n
}

// do runs f on a thread in the namespace: the sockets that f makes, and the
// processes that it starts, are in it and stay there.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.name, err)
		}
		return f()
	})
}

// onThread keeps f on one thread and brings that back to the namespace where it
// was. The thread must not end: what it has started would be killed with it.
func onThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("leave a network namespace: %v", back)) // other goroutines would be in it
	}
	return err
}

// run runs a program in the namespace and returns what it says.
func (n *namespace) run(name string, args ...string) (out string, err error) {
	err = n.do(func() error {
		said, err := exec.Command(name, args...).CombinedOutput()
		out = string(said)
		return err
	})
	return out, err
}

// ip runs ip(8) with the words of a line.
func (n *namespace) ip(t *testing.T, line string) {
	t.Helper()
	if out, err := n.run("ip", strings.Fields(line)...); err != nil {
		t.Fatalf("in %s: ip %s: %v: %s", n.name, line, err, out)
	}
}

// plug connects other to a switch in n, with an address.
func (n *namespace) plug(t *testing.T, other *namespace, address string) {
	t.Helper()
	n.ip(t, fmt.Sprintf("link add to-%s type veth peer name eth0 netns /proc/%d/fd/%d", other.name, os.Getpid(), other.file.Fd()))
	n.ip(t, "link set to-"+other.name+" master switch up")
	other.ip(t, "address add "+address+"/24 dev eth0")
	other.ip(t, "link set eth0 up")
}

// listen makes a listener in the namespace.
func (n *namespace) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	err := n.do(func() (err error) {
		listener, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		t.Fatalf("listen in %s: %v", n.name, err)
	}
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // ends with the test
	return listener
}

// dial connects from the namespace, as root's programs there would.
func (n *namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// forward makes a door on the namespace's loopback address that leads to an
// address of the host, and returns its address.
func (n *namespace) forward(t *testing.T, to string) string {
	t.Helper()
	listener := n.listen(t, "127.0.0.1:0")
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer from.Close()
				conn, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer conn.Close()
				go func() {
					io.Copy(conn, from) //nolint:errcheck // one of both has ended
					conn.Close()
				}()
				io.Copy(from, conn) //nolint:errcheck // one of both has ended
			}()
		}
	}()
	return listener.Addr().String()
}
