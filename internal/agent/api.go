package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/time/rate"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Status is the agent's page /status. The first fields are those of App Mesh's
// agent, strings as there.
type Status struct {
	HealthStatus   string           `json:"healthStatus"` // HEALTHY or UNHEALTHY
	AgentUptime    string           `json:"agentUptime"`  // seconds
	EnvoyPid       string           `json:"envoyPid"`
	EnvoyState     string           `json:"envoyState"` // RUNNING or STOPPED
	EnvoyRestarts  string           `json:"envoyRestartCount"`
	Connection     string           `json:"managementServerConnectionStatus"`               // CONNECTED or NOT_CONNECTED
	DisconnectedAt int64            `json:"managementServerDisconnectedTimestamp,omitzero"` // Unix seconds
	EnvoyReadiness string           `json:"envoyReadinessState"`                            // READY or NOT_READY
	InitialConfig  string           `json:"initialConfigUpdateStatus"`                      // SUCCEEDED or PENDING
	Resource       string           `json:"resource"`
	Version        string           `json:"version"`
	Server         string           `json:"server"`
	NotConnected   string           `json:"notConnected,omitempty"` // why
	Problems       []string         `json:"problems,omitempty"`     // of listeners that never served; the others do
	NotReady       []string         `json:"notReady,omitempty"`
	Lineage        string           `json:"lineage,omitempty"` // of the store that the configuration came from
	Revision       int64            `json:"revision,omitzero"` // and its revision
	Held           string           `json:"held,omitempty"`    // why the server's newest is not taken
	Rejected       []RejectedStatus `json:"rejected,omitempty"`
	Secrets        []SecretStatus   `json:"secrets,omitempty"`
	Closed         []ClosedStatus   `json:"closed,omitempty"`
	Warnings       []string         `json:"warnings,omitempty"`
}

// RejectedStatus is a resource that Envoy has rejected; the one before stays.
type RejectedStatus struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Message string `json:"message"` // Envoy's
}

// SecretStatus is a secret made of files, or one of the server that is here.
type SecretStatus struct {
	Name     string `json:"name"`
	Loaded   bool   `json:"loaded"`
	Problem  string `json:"problem,omitempty"`
	NotAfter string `json:"notAfter,omitempty"` // RFC 3339
}

// ClosedStatus is a secret of the server that is not here, and what refuses
// connections for want of it.
type ClosedStatus struct {
	Secret string   `json:"secret"`
	Closes []string `json:"closes"` // listeners and clusters
	Why    string   `json:"why"`
}

// api is the agent's own API, at App Mesh's port 9902.
func (a *Agent) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		encoded, err := jsonv2.Marshal(a.Status(r.Context()), jsontext.WithIndent("  "))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(encoded, '\n')) //nolint:errcheck // the client has gone
	})
	mux.HandleFunc("POST /drain_listeners", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "inboundonly" {
			http.Error(w, "the query must be inboundonly", http.StatusBadRequest)
			return
		}
		a.passOn(w, r, http.MethodPost, "/drain_listeners?inboundonly")
	})
	logging := &temporaryLevel{admin: a.admin, usual: a.config.Envoy.LogLevel, current: a.config.Envoy.LogLevel, reset: a.config.LoggingReset}
	mux.HandleFunc("POST /enableLogging", logging.serve)
	mux.HandleFunc("GET /stats/prometheus", a.servePrometheus)
	limit := rate.NewLimiter(10, 20) // as App Mesh's agent
	return guardLocal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !limit.Allow() {
			http.Error(w, "at most 10 requests a second", http.StatusTooManyRequests)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// Status is the agent's state now.
func (a *Agent) Status(ctx context.Context) Status {
	now, state, process := a.now(), a.relay.state.Load(), a.envoy.current()
	ready := a.readiness(ctx)
	choose := func(yes bool, then, otherwise string) string {
		if yes {
			return then
		}
		return otherwise
	}
	connected := state.connection.connected
	// What runs goes on without the server: that alone is no illness for days.
	healthy := ready.ready && (connected || now.Sub(state.connection.since) < a.config.DisconnectedTimeout)
	s := Status{
		HealthStatus:   choose(healthy, "HEALTHY", "UNHEALTHY"),
		AgentUptime:    strconv.Itoa(int(now.Sub(a.started).Seconds())),
		EnvoyPid:       strconv.Itoa(process.Pid),
		EnvoyState:     choose(process.Pid != 0, "RUNNING", "STOPPED"),
		EnvoyRestarts:  strconv.Itoa(process.Restarts),
		Connection:     choose(connected, "CONNECTED", "NOT_CONNECTED"),
		EnvoyReadiness: choose(ready.ready, "READY", "NOT_READY"),
		InitialConfig:  choose(state.configured, "SUCCEEDED", "PENDING"),
		Resource:       a.config.Resource, Version: a.config.Version, Server: a.config.serverName(),
		NotReady: ready.why, Problems: ready.problems, Lineage: state.lineage, Revision: state.revision, Held: state.held, Warnings: a.config.Warnings,
	}
	if !connected {
		s.DisconnectedAt, s.NotConnected = state.connection.since.Unix(), state.connection.why
	}
	for ref, message := range state.rejected {
		s.Rejected = append(s.Rejected, RejectedStatus{ref.Type.String(), ref.Name, message})
	}
	slices.SortFunc(s.Rejected, func(x, y RejectedStatus) int { return strings.Compare(x.Type+x.Name, y.Type+y.Name) })
	for _, secret := range a.files.states() {
		status := SecretStatus{Name: secret.Name, Loaded: secret.Loaded, Problem: secret.Problem}
		if !secret.Expires.IsZero() {
			status.NotAfter = secret.Expires.UTC().Format(time.RFC3339)
		}
		s.Secrets = append(s.Secrets, status)
	}
	for _, secret := range state.secrets {
		status := SecretStatus{Name: secret.name, Loaded: secret.held}
		if !secret.expires.IsZero() {
			status.NotAfter = secret.expires.UTC().Format(time.RFC3339)
		}
		s.Secrets = append(s.Secrets, status)
	}
	s.Closed = closedStatus(state, a.config.Envoy.SDSSocket)
	return s
}

func closedStatus(state *relayState, provider string) []ClosedStatus {
	var closed []ClosedStatus
	for name, refs := range state.closed {
		c := ClosedStatus{Secret: name, Closes: refNames(refs), Why: "its key comes from the server, which is not there: " + state.connection.why}
		if state.connection.connected {
			c.Why = "the server has not sent it"
		}
		closed = append(closed, c)
	}
	if provider == "" {
		for name, refs := range state.provider {
			closed = append(closed, ClosedStatus{Secret: name, Closes: refNames(refs), Why: "nothing provides it: APPMESH_SDS_SOCKET_PATH is not set"})
		}
	}
	slices.SortFunc(closed, func(x, y ClosedStatus) int { return strings.Compare(x.Secret, y.Secret) })
	return closed
}

func refNames(refs []envoy.Ref) []string {
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = ref.Type.String() + " " + ref.Name
	}
	return names
}

// passOn answers with Envoy's answer.
func (a *Agent) passOn(w http.ResponseWriter, r *http.Request, method, page string) {
	body, err := a.admin.call(r.Context(), method, page)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Write(body) //nolint:errcheck // the client has gone
}

// servePrometheus is Envoy's page; of the metrics extension, without its prefix.
func (a *Agent) servePrometheus(w http.ResponseWriter, r *http.Request) {
	query, page := r.URL.Query(), "/stats/prometheus?"
	if query.Has("usedonly") {
		page += "usedonly&"
	}
	extension := query.Get("filter") == "metrics_extension"
	switch {
	case extension:
		page += "filter=appmesh"
	case query.Has("filter"):
		http.Error(w, "the only filter is metrics_extension", http.StatusBadRequest)
		return
	case query.Has("delta"):
		http.Error(w, "delta needs ENABLE_STATS_SNAPSHOT, which is not supported; Prometheus computes rates itself", http.StatusBadRequest)
		return
	}
	body, err := a.admin.get(r.Context(), page)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	text := string(body)
	if extension {
		text = strings.ReplaceAll(text, "envoy_appmesh_", "")
	}
	io.WriteString(w, text) //nolint:errcheck // the client has gone
}

// temporaryLevel changes Envoy's log level, for a while unless asked otherwise.
type temporaryLevel struct {
	admin *envoyAdmin
	usual string
	reset time.Duration

	mu      sync.Mutex
	current string
	pending *time.Timer
}

func (t *temporaryLevel) serve(w http.ResponseWriter, r *http.Request) {
	level := r.URL.Query().Get("level")
	permanent, err := strconv.ParseBool(r.URL.Query().Get("permanent"))
	if !slices.Contains(levels, level) || err != nil && r.URL.Query().Has("permanent") {
		http.Error(w, "level is one of "+strings.Join(levels, ", ")+"; permanent is true or false", http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == level || t.pending != nil {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if _, err := t.admin.call(r.Context(), http.MethodPost, "/logging?level="+level); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	t.current = level
	if permanent {
		t.usual = level
		fmt.Fprintf(w, "Envoy logs at level %s\n", level)
		return
	}
	t.pending = time.AfterFunc(t.reset, t.restore)
	fmt.Fprintf(w, "Envoy logs at level %s for %s\n", level, t.reset)
}

func (t *temporaryLevel) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	// An Envoy that does not answer has ended: the next one has its usual level.
	t.admin.call(ctx, http.MethodPost, "/logging?level="+t.usual) //nolint:errcheck // see above
	t.current, t.pending = t.usual, nil
}
