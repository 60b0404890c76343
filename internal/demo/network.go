package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

// Ports that every proxy of the demo binds on its own loopback address.
const (
	listenerPort = 8080 // of the virtual nodes and the gateway, as in the specs
	adminPort    = 9901
)

// Host numbers within the demo's loopback network.
const (
	gatewayHost = 10
	blueHost    = 11
	greenHost   = 12
	redHost     = 13
)

// network is a /24 of the loopback range, so that every endpoint has an
// address of its own without root.
type network struct{ a, b byte }

// freeNetwork finds one where nothing listens yet: another demo may be running.
func freeNetwork() (network, error) {
	for try := range 50 {
		n := network{a: 77, b: byte((os.Getpid() + try) % 250)}
		listener, err := net.Listen("tcp", n.at(gatewayHost, listenerPort))
		if err == nil {
			return n, listener.Close()
		}
	}
	return network{}, fmt.Errorf("no free loopback network found for port %d", listenerPort)
}

func (n network) ip(host byte) string { return fmt.Sprintf("127.%d.%d.%d", n.a, n.b, host) }

func (n network) at(host byte, port int) string {
	return net.JoinHostPort(n.ip(host), strconv.Itoa(port))
}

// application answers every request with its name. It listens on a free port
// of 127.0.0.1 and stops with the context.
func application(ctx context.Context, name string) (port int, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("start application %s: %w", name, err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s\n", name)
	})}
	go app.Serve(listener) //nolint:errcheck // it ends with Close
	context.AfterFunc(ctx, func() { app.Close() })
	return listener.Addr().(*net.TCPAddr).Port, nil
}
