package meshtest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// A link that is cut refuses and breaks; one that is frozen passes on later.
func TestLink(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			conn, err := target.Accept()
			if err != nil {
				return
			}
			go io.Copy(conn, conn) //nolint:errcheck // ends with the connection
		}
	}()
	link := meshtest.NewLink(t, target.Addr().String())
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", link.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, bufio.NewReader(conn)
	}
	conn, in := dial()
	echo := func(text string, within time.Duration) error {
		conn.SetDeadline(time.Now().Add(within)) //nolint:errcheck // a closed connection fails below
		fmt.Fprintln(conn, text)
		got, err := in.ReadString('\n')
		if err == nil && got != text+"\n" {
			t.Errorf("got %q, want %q", got, text)
		}
		return err
	}
	if err := echo("up", 5*time.Second); err != nil {
		t.Error(err)
	}
	link.Freeze()
	if err := echo("frozen", 200*time.Millisecond); err == nil {
		t.Error("a frozen link has passed something on")
	}
	link.Restore()
	conn.SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // a closed connection fails below
	if got, err := in.ReadString('\n'); got != "frozen\n" {
		t.Errorf("after the link thawed: %q %v", got, err)
	}
	link.Cut()
	if err := echo("cut", 5*time.Second); err == nil {
		t.Error("a connection has survived the cut")
	}
	conn, in = dial() // the link accepts and hangs up
	if err := echo("cut", 5*time.Second); err == nil {
		t.Error("a cut link has passed something on")
	}
	link.Restore()
	conn, in = dial()
	if err := echo("up again", 5*time.Second); err != nil {
		t.Error(err)
	}
}
