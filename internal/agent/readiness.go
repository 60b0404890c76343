package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead/fairlead/internal/envoy"
)

// readiness is whether this proxy serves what it should, and if not, why. Envoy's
// own /ready says LIVE with no listeners at all (facts/reliability.md 0.5).
type readiness struct {
	ready bool
	why   []string // not; empty if ready
	// problems are those of listeners that never served: a mistake in what was
	// added last must not take away what serves.
	problems []string
}

// served are the listeners that have served since the agent started. Until the
// first time that all is well, everything counts.
type served struct {
	mu    sync.Mutex
	names map[string]bool // nil: never ready yet
}

// judge divides the problems of listeners into those that make the proxy not
// ready and the others.
func (s *served) judge(expected []string, problems map[string][]string) readiness {
	s.mu.Lock()
	defer s.mu.Unlock()
	var state readiness
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		if s.names == nil || s.names[name] {
			state.why = append(state.why, problems[name]...)
		} else {
			state.problems = append(state.problems, problems[name]...)
		}
	}
	slices.Sort(state.why)
	state.why = slices.Compact(state.why)
	if state.ready = len(state.why) == 0; !state.ready {
		return state
	}
	if s.names == nil {
		s.names = map[string]bool{}
	}
	for _, name := range expected {
		if len(problems[name]) == 0 {
			s.names[name] = true
		}
	}
	maps.DeleteFunc(s.names, func(name string, _ bool) bool { return !slices.Contains(expected, name) })
	return state
}

// readiness looks at Envoy now.
func (a *Agent) readiness(ctx context.Context) readiness {
	state := a.relay.state.Load()
	process := a.envoy.current()
	switch {
	case a.draining.Load():
		return notReady("draining: the agent was told to stop")
	case process.Pid == 0:
		return notReady(strings.TrimSuffix("Envoy does not run: "+process.LastExit, ": "))
	case a.config.Envoy.ConfigFile == "" && !state.configured:
		return notReady("no configuration yet: " + state.connection.reason())
	}
	if _, err := a.admin.get(ctx, "/ready"); err != nil {
		return notReady(err.Error())
	}
	if a.config.Envoy.ConfigFile != "" {
		return readiness{ready: true}
	}
	present, err := a.admin.listeners(ctx)
	if err != nil {
		return notReady(err.Error())
	}
	problems := a.secretProblems(state)
	for _, name := range state.listeners {
		if present[name] {
			continue
		}
		reason := "Envoy does not have it yet"
		if rejected := state.rejected[envoy.Ref{Type: envoy.Listener, Name: name}]; rejected != "" {
			reason = "Envoy rejects it: " + rejected
		}
		problems[name] = append(problems[name], fmt.Sprintf("listener %s: %s", name, reason))
	}
	return a.served.judge(state.listeners, problems)
}

func notReady(why string) readiness { return readiness{why: []string{why}} }

// secretProblems are, by listener, the secrets without which it does not serve.
// A client certificate that is missing closes an edge and not the proxy.
func (a *Agent) secretProblems(state *relayState) map[string][]string {
	problems := map[string][]string{}
	blame := func(refs []envoy.Ref, problem string) {
		for _, ref := range refs {
			if ref.Type == envoy.Listener {
				problems[ref.Name] = append(problems[ref.Name], problem)
			}
		}
	}
	for _, s := range a.files.states() {
		switch {
		case !s.Loaded:
			blame(state.file[s.Name], "certificate: "+s.Problem)
		case !s.Held: // it would refuse the very next connection
			blame(state.file[s.Name], "certificate: Envoy does not have it yet: "+s.Files.Chain)
		}
	}
	for _, s := range state.secrets {
		if !s.held {
			blame(s.namedBy, "certificate: Envoy does not have it yet: "+s.name)
		}
	}
	for name, refs := range state.closed {
		blame(refs, fmt.Sprintf("secret %s: it comes from the server, and the server has not sent it", name))
	}
	if a.config.Envoy.SDSSocket == "" {
		for name, refs := range state.provider {
			blame(refs, fmt.Sprintf("secret %s: nothing provides it; APPMESH_SDS_SOCKET_PATH is not set", name))
		}
	}
	return problems
}

// reason is why there is no stream, or that it is new.
func (c connection) reason() string {
	if c.connected {
		return "the server has not sent all of it"
	}
	return c.why
}
