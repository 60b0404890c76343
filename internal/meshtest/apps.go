package meshtest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// AppHeader is the response header in which a gRPC application says its name.
const AppHeader = "x-app"

// StartGRPC serves gRPC's health service on a free port of 127.0.0.1, which
// says SERVING, and the application's name in the header AppHeader.
func StartGRPC(t testing.TB, name string) *App {
	t.Helper()
	listener := listenLocal(t, name)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := grpc.SetHeader(ctx, metadata.Pairs(AppHeader, name)); err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	return &App{Name: name, Port: listener.Addr().(*net.TCPAddr).Port}
}

// StartTCP answers each line with the application's name and the line, on a
// free port of 127.0.0.1.
func StartTCP(t testing.TB, name string) *App {
	t.Helper()
	listener := listenLocal(t, name)
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // ends with the test
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go answerLines(conn, name)
		}
	}()
	return &App{Name: name, Port: listener.Addr().(*net.TCPAddr).Port}
}

func answerLines(conn net.Conn, name string) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if _, err := fmt.Fprintf(conn, "%s %s\n", name, lines.Text()); err != nil {
			return
		}
	}
}

func listenLocal(t testing.TB, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start application %s: %v", name, err)
	}
	return listener
}
