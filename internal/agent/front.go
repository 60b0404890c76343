package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// The pages of Envoy's admin that change nothing and tell no secret. The rest,
// /config_dump and /quitquitquit among them, stays behind the 0600 socket.
var servedPages = map[string]bool{
	"/stats": true, "/stats/prometheus": true, "/stats/recentlookups": true,
	"/clusters": true, "/listeners": true, "/certs": true,
}

// withheldPages exist, but not here.
var withheldPages = map[string]bool{
	"/config_dump": true, "/contention": true, "/cpuprofiler": true, "/drain_listeners": true, "/healthcheck": true, "/heapprofiler": true,
	"/heap_dump": true, "/help": true, "/hot_restart_version": true, "/init_dump": true, "/logging": true, "/memory": true, "/quitquitquit": true,
	"/reopen_logs": true, "/reset_counters": true, "/runtime": true, "/runtime_modify": true, "/allocprofiler": true, "/tap": true,
}

// front is what others see of Envoy's admin, at App Mesh's port 9901.
func (a *Agent) front() http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: a.admin.transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "envoy", "envoy"
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "Envoy does not answer: "+err.Error(), http.StatusServiceUnavailable)
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return guardLocal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := r.URL.Path
		switch {
		case withheldPages[page]:
			http.Error(w, page+" is not served here", http.StatusForbidden)
		case page != "/ready" && page != "/server_info" && !servedPages[page]:
			http.Error(w, "there are /ready, /server_info, /stats, /stats/prometheus, /clusters, /listeners and /certs", http.StatusNotFound)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		case page == "/ready":
			a.serveReady(w, r)
		case page == "/server_info":
			a.serveInfo(w, r)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
}

func (a *Agent) serveReady(w http.ResponseWriter, r *http.Request) {
	state := a.readiness(r.Context())
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	if state.ready {
		io.WriteString(w, "LIVE\n") //nolint:errcheck // the client has gone
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, "NOT READY\n%s\n", strings.Join(state.why, "\n"))
}

// serveInfo is Envoy's page with the true state: health checks of App Mesh's
// time look for LIVE in it.
func (a *Agent) serveInfo(w http.ResponseWriter, r *http.Request) {
	var info adminv3.ServerInfo
	if err := a.admin.message(r.Context(), "/server_info", &info); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	ready := a.readiness(r.Context()).ready
	switch {
	case a.draining.Load():
		info.State = adminv3.ServerInfo_DRAINING
	case ready:
		info.State = adminv3.ServerInfo_LIVE
	case info.State == adminv3.ServerInfo_LIVE:
		info.State = adminv3.ServerInfo_INITIALIZING
	}
	encoded, err := protojson.MarshalOptions{Multiline: true, Indent: " ", UseProtoNames: true, EmitUnpopulated: true}.Marshal(&info)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(encoded, '\n')) //nolint:errcheck // the client has gone
}

// guardLocal refuses what a web page in somebody's browser may send: a name that
// was made to point here (DNS rebinding), or a request of another origin.
func guardLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case err != nil && host != "localhost" && host != "":
			http.Error(w, fmt.Sprintf("the Host %q is neither an address nor localhost", r.Host), http.StatusForbidden)
		case r.Header.Get("Origin") != "":
			http.Error(w, "not for web pages", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// serveHTTP serves until the context ends.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}
