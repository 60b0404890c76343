package agent

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestEnvoyOpensItsOutput: Envoy opens /dev/stdout for its logs also where the
// agent's own output is a socket, as under systemd.
func TestEnvoyOpensItsOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	journal, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	dialled, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	out, err := dialled.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	conn, err := journal.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := &supervisor{binary: "/bin/sh", args: []string{"-c", "echo an access log > /dev/stdout && exec sleep 60"}, limit: 0, out: out, log: slog.New(slog.DiscardHandler)}
	go func() { ended <- s.run(ctx) }()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "an access log\n" {
		t.Errorf("the journal has %q, %v", line, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
