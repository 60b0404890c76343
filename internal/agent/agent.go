// Package agent is what `fairlead agent` does beside a stock Envoy: it makes its
// bootstrap, keeps it running, relays the server's configuration to it, serves
// the certificates of this host's files, and tells the truth about readiness.
// It decides nothing of what the configuration says (that is package envoy) nor
// of what a proxy may have (packages iam and xds). It follows design.md 3
// ("Agent") and facts/data-plane.md A and B.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/internal/xds"
)

// Agent is one proxy's agent, while it runs.
type Agent struct {
	config Config
	log    *slog.Logger
	now    func() time.Time

	state    *stateDir // nil: nothing is kept
	runtime  *runtimeDir
	files    *fileSecrets
	relay    *relay
	envoy    *supervisor
	admin    *envoyAdmin
	observer *observer
	started  time.Time
	version  string // of Envoy
	served   served
	draining atomic.Bool
	closers  []io.Closer // of what Run has not taken over
}

// Run is an agent's life: it returns when the context has ended and Envoy has
// been drained and stopped, or with an error if it cannot go on. Envoy writes
// to out.
func Run(ctx context.Context, config Config, log *slog.Logger, out io.Writer) error {
	a := &Agent{config: config, log: log, now: time.Now, started: time.Now()}
	for _, warning := range config.Warnings {
		log.Warn(warning)
	}
	if err := raiseFileLimit(); err != nil {
		log.Warn("Envoy may run out of files", "why", err)
	}
	defer a.cleanUp()
	var err error
	if a.version, err = envoyVersion(ctx, config.Envoy.Binary); err != nil {
		if ctx.Err() != nil {
			return nil // told to end while starting
		}
		return err
	}
	if err := a.openState(); err != nil {
		return err
	}
	var arguments []string
	if arguments, err = a.prepareEnvoy(); err != nil {
		return err
	}
	a.files = newFileSecrets(a.now, log)
	a.relay = newRelay(config, a.files, log, a.now)
	a.relay.envoyVersion = a.version
	a.envoy = &supervisor{binary: config.Envoy.Binary, args: arguments, limit: config.RestartLimit, out: out, log: log}
	a.observer = newObserver(a)
	a.relay.changed, a.files.changed, a.envoy.changed = a.observer.poke, a.observer.poke, a.observer.poke
	a.relay.rebase = func(b baselines) {
		select {
		case a.observer.rebase <- b:
		default: // Envoy does not answer; the counters are older than the change
		}
	}
	a.restore()
	return a.run(ctx)
}

// openState opens the directory on the disk. The user's own must work; without
// the default one the agent works too, but for a restart in an outage.
func (a *Agent) openState() (err error) {
	if a.config.StateDir == "" {
		a.log.Warn("nothing is kept on the disk: set FAIRLEAD_STATE_DIR, so that a restart without the server serves")
		return nil
	}
	a.state, err = openStateDir(a.config.StateDir)
	if err != nil && !a.config.StateDirGiven {
		a.log.Warn("nothing is kept on the disk; set FAIRLEAD_STATE_DIR", "why", err)
		return nil
	}
	return err
}

// prepareEnvoy writes the bootstrap and returns Envoy's arguments.
func (a *Agent) prepareEnvoy() (arguments []string, err error) {
	if a.runtime, err = newRuntimeDir(a.now()); err != nil {
		return nil, err
	}
	if file := a.config.Envoy.ConfigFile; file != "" {
		at, err := adminOfFile(file)
		if err != nil {
			return nil, err
		}
		a.admin = newEnvoyAdmin(at)
		return a.config.envoyArguments(file), nil
	}
	paths := a.runtime.sockets()
	a.admin = newEnvoyAdmin(Address{"unix", paths.admin})
	bootstrap, err := a.config.bootstrapJSON(paths)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(a.runtime.path, "bootstrap.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("write bootstrap: %w", err)
	}
	return a.config.envoyArguments(file), nil
}

// restore takes up the configuration on the disk. One that cannot be read is no
// reason not to start: the server has a better one.
func (a *Agent) restore() {
	if a.state == nil {
		return
	}
	saved, err := a.state.load(a.config.Resource)
	if err == nil && saved != nil {
		err = a.relay.restore(saved)
	}
	if err != nil {
		a.log.Warn("the configuration on the disk is of no use", "why", err)
	} else if saved != nil {
		a.log.Info("serving the configuration on the disk until the server is there", "revision", saved.Revision)
	}
}

// run starts the parts and ends them in order: Envoy drains while everything
// else still serves it.
func (a *Agent) run(ctx context.Context) error {
	listeners, err := a.listen()
	if err != nil {
		return err
	}
	server := grpc.NewServer(xds.ServerOptions()...)
	xds.NewHandler(server, &xds.Handler{Acceptor: a.relay, Log: a.log})
	secretv3.RegisterSecretDiscoveryServiceServer(server, &sdsServer{files: a.files})

	// The parts outlive the signal: they end when Envoy has.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	group, failed := errgroup.WithContext(serving)
	running, stopEnvoy := context.WithCancel(failed)
	defer stopEnvoy()
	ended := make(chan struct{})
	group.Go(func() error { return server.Serve(listeners.xds) })
	group.Go(func() error { a.relay.run(failed); return nil })
	group.Go(func() error { return a.files.run(failed) })
	group.Go(func() error { a.observer.run(failed); return nil })
	group.Go(func() error { return serveHTTP(failed, listeners.admin, a.front()) })
	group.Go(func() error { return serveHTTP(failed, listeners.api, a.api()) })
	if a.state != nil {
		group.Go(func() error { a.state.keep(failed, a.relay.disk, a.log); return nil })
	}
	if a.config.Envoy.ConfigFile == "" {
		calls, connected := &issuer{}, make(chan struct{}, 1)
		up := &upstream{config: a.config, log: a.log, events: a.relay.server, issuer: calls, opened: func() {
			select {
			case connected <- struct{}{}:
			default:
			}
		}}
		own := &ownSecrets{resource: a.config.Resource, secrets: a.files, issue: calls.call, log: a.log, now: a.now, connected: connected}
		group.Go(func() error { own.run(failed); return nil })
		group.Go(func() error { up.run(failed); return nil })
	}
	if os.Getpid() == 1 {
		group.Go(func() error { reap(failed, func() int { return a.envoy.current().Pid }); return nil })
	}
	group.Go(func() error {
		defer close(ended)
		return a.envoy.run(running)
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			a.drain(failed)
		case <-failed.Done():
		}
		stopEnvoy()
		<-ended
		stopServing()
		server.Stop()
		return nil
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// drain lets connections end: Envoy asks clients to go and takes new ones until
// the time is over or nobody is left.
func (a *Agent) drain(ctx context.Context) {
	a.draining.Store(true)
	a.observer.poke()
	if a.envoy.current().Pid == 0 {
		return
	}
	if _, err := a.admin.call(ctx, "POST", "/drain_listeners?graceful"); err != nil {
		a.log.Warn("Envoy is stopped without draining", "why", err)
		return
	}
	const idleFor = time.Second // a client between two connections is not gone
	began, idle := a.now(), time.Time{}
	a.log.Info("draining", "at_most", a.config.DrainWait)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for a.now().Sub(began) < a.config.DrainWait {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		left, err := a.admin.connections(ctx)
		switch {
		case err != nil:
			a.log.Warn("draining ends: Envoy does not answer", "why", err)
			return
		case left > 0:
			idle = time.Time{}
		case idle.IsZero():
			idle = a.now()
		case a.now().Sub(idle) >= idleFor:
			a.log.Info("drained: no connection is left", "after", a.now().Sub(began).Round(time.Millisecond))
			return
		}
	}
	a.log.Info("draining is over; connections that are left are cut", "after", a.config.DrainWait)
}

// agentListeners are the sockets that the agent serves.
type agentListeners struct{ xds, admin, api net.Listener }

func (a *Agent) listen() (l agentListeners, err error) {
	for _, s := range []struct {
		listener *net.Listener
		at       Address
		what     string
	}{
		{&l.xds, Address{"unix", a.runtime.sockets().xds}, "Envoy's configuration"},
		{&l.admin, a.config.Admin, "Envoy's admin (ENVOY_ADMIN_ACCESS_PORT, FAIRLEAD_BIND_ADDRESS)"},
		{&l.api, a.config.API, "the agent's API (APPNET_AGENT_HTTP_PORT, FAIRLEAD_BIND_ADDRESS)"},
	} {
		if *s.listener, err = listenAt(s.at); err != nil {
			return l, fmt.Errorf("serve %s: %w", s.what, err)
		}
		a.closers = append(a.closers, *s.listener)
	}
	return l, nil
}

// listenAt takes the place of a socket that an agent left behind, and lets only
// its user in.
func listenAt(at Address) (net.Listener, error) {
	if at.Network != "unix" {
		return net.Listen(at.Network, at.Address)
	}
	if info, err := os.Lstat(at.Address); err == nil && info.Mode().Type() == os.ModeSocket {
		if conn, err := net.Dial("unix", at.Address); err == nil {
			return nil, errors.Join(fmt.Errorf("listen at %s: it is in use", at.Address), conn.Close())
		}
		if err := os.Remove(at.Address); err != nil {
			return nil, fmt.Errorf("take the place of an old socket: %w", err)
		}
	}
	listener, err := net.Listen("unix", at.Address)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(at.Address, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect %s: %w", at.Address, err), listener.Close())
	}
	return listener, nil
}

func (a *Agent) cleanUp() {
	for _, c := range a.closers {
		c.Close() //nolint:errcheck // most have been closed by their servers
	}
	if a.runtime != nil {
		if err := a.runtime.remove(); err != nil {
			a.log.Warn("the directory for sockets stays", "why", err)
		}
	}
	if a.state != nil {
		a.state.close() //nolint:errcheck // the lock ends with the process at the latest
	}
}
