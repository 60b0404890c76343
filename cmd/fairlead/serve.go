package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsacm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/pki"
	"github.com/fairlead/fairlead/internal/server"
	"github.com/fairlead/fairlead/internal/store"
	"github.com/fairlead/fairlead/internal/xds"
)

// shutdownTime bounds what requests in flight get when the server is to end.
const shutdownTime = 5 * time.Second

// controlPlane is a server between start and end.
type controlPlane struct {
	config   *serverConfig
	log      *slog.Logger
	store    *store.Store
	tls      *serverTLS
	metrics  *prometheus.Registry
	api      http.Handler
	xds      *xds.Server
	mesh     *server.Service
	pca      *pki.PrivateCA
	acm      *pki.ACM
	mirror   *awsacm.Mirror // nil: certificates and authorities are embedded
	rotator  *pki.Rotator   // nil, as mirror is not
	own      *pki.OwnSDS
	ops      *operations
	listener struct{ api, xds, ops net.Listener }
}

// serve runs a server until ctx ends. Everything that can fail at the start
// fails before the ready line.
func serve(ctx context.Context, c *serverConfig, log *slog.Logger, stdout io.Writer) error {
	p := &controlPlane{config: c, log: log, metrics: prometheus.NewRegistry(), ops: &operations{version: buildVersion()}}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := p.listen(ctx); err != nil {
		return err
	}
	defer p.closeListeners()

	var err error
	p.store, err = store.Open(ctx, store.Config{
		DataDir: c.DataDir, Endpoints: c.EtcdEndpoints, KEK: c.key, Account: c.AccountID,
		Log: log, UnsafeNoFsync: c.UnsafeNoFsync,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to end while starting
		}
		return explainOpen(c.EtcdEndpoints, err)
	}
	defer p.store.Close()
	if owner := p.store.Account(); owner != c.AccountID {
		return usagef("--account-id %s: this store was made for account %q, which owns its meshes and keys", c.AccountID, owner)
	}
	if p.tls, err = newServerTLS(c, log); err != nil {
		return err
	}
	warnOpen(c, log)
	if err := p.routes(ctx); err != nil {
		return err
	}
	return p.run(ctx, stdout)
}

// explainOpen adds what to do about a store that cannot be opened.
func explainOpen(endpoints []string, err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("%w: stop it, or give this one another --data-dir", err)
	case errors.Is(err, store.ErrWrongKEK):
		return fmt.Errorf("%w: give the store's own with --kek or --kek-file", err)
	case errors.Is(err, store.ErrNewerSchema):
		return fmt.Errorf("%w: use that version", err)
	case errors.Is(err, store.ErrUnavailable) && len(endpoints) > 0:
		return fmt.Errorf("%w: is etcd reachable at %v?", err, endpoints)
	}
	return err
}

func (p *controlPlane) listen(ctx context.Context) error {
	for _, l := range []struct {
		flag, address string
		to            *net.Listener
	}{
		{"api-address", p.config.APIAddress, &p.listener.api},
		{"xds-address", p.config.XDSAddress, &p.listener.xds},
		{"ops-address", p.config.OpsAddress, &p.listener.ops},
	} {
		var err error
		if *l.to, err = listen(ctx, l.flag, l.address); err != nil {
			p.closeListeners()
			return err
		}
	}
	return nil
}

// closeListeners is for those that no server has taken over; closing the
// others again does nothing.
func (p *controlPlane) closeListeners() {
	for _, l := range []net.Listener{p.listener.api, p.listener.xds, p.listener.ops} {
		if l != nil {
			l.Close() //nolint:errcheck // nothing is lost with it
		}
	}
}

// routes puts the services behind the API's address.
func (p *controlPlane) routes(ctx context.Context) error {
	graphs := server.Graphs{TrustDomain: p.config.TrustDomain}
	wire := awsapi.Config{
		Keys: p.store, Region: p.config.Region, Account: p.config.AccountID, Tags: p.tags, Log: p.log,
		Rates: awsapi.Rates{Reads: float64(p.config.ReadRate), Writes: float64(p.config.WriteRate)},
	}
	p.pca = pki.NewPrivateCA(pki.Config{Store: p.store, Region: p.config.Region, URL: p.pkiURL(), Folder: p.config.DataDir, Now: time.Now, Log: p.log})
	p.own = &pki.OwnSDS{Authorities: p.pca, TrustDomain: p.config.TrustDomain, Life: p.config.OwnCertificateLife}
	metrics, err := xds.NewMetrics(p.metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	p.xds, err = xds.NewServer(xds.Config{
		Source: p.store, Evidence: p.store.NewSightings(), Name: p.serverName(),
		Authenticate: func(ctx context.Context, method string) (iam.Principal, error) {
			return awsapi.VerifyStream(ctx, wire, method)
		},
		Revocations: p.store.WatchRevocations, Issue: p.issue,
		TLS: p.tls.config("h2"), NewCompiler: graphs.Compiler, ProxyLimit: p.config.quotas.Proxies, Metrics: metrics, Log: p.log,
	})
	if err != nil {
		return err
	}
	mux := awsapi.NewMux(wire)
	p.mesh = &server.Service{Store: p.store, Region: p.config.Region, Graphs: graphs, Quotas: p.config.quotas, Now: time.Now, Log: p.log}
	awsapi.Mount(mux, appmesh.SigningName, appmesh.Service(p.mesh), appmesh.Operations)
	operator := &server.Operator{Store: p.store, Account: p.config.AccountID, Graphs: graphs, Proxies: p.xds, Now: time.Now, Log: p.log}
	operator.Mount(mux)
	(&server.STS{Store: p.store, Now: time.Now}).Mount(mux)
	if err := p.certificates(ctx, mux, p.mesh, &graphs); err != nil {
		return err
	}
	p.api = server.WithWarnings(mux)
	return nil
}

// serverName is what operators know this server by among those of a store.
func (p *controlPlane) serverName() string {
	host, err := os.Hostname()
	if err != nil {
		return p.listener.xds.Addr().String()
	}
	return host + "/" + p.listener.xds.Addr().String()
}

// issue makes a certificate of Fairlead's own SDS.
func (p *controlPlane) issue(ctx context.Context, by iam.Principal, name mesh.Name, id mesh.ID, r xds.IssueRequest) (xds.Issued, error) {
	chain, err := p.own.Issue(ctx, by, name, id, r.Secret, []byte(r.CSR))
	return xds.Issued{Chain: string(chain), Life: p.own.Life.Seconds()}, err
}

// pkiURL is where certificates say that CRLs and OCSP answers are.
func (p *controlPlane) pkiURL() string {
	if p.config.PKIURL != "" {
		return p.config.PKIURL
	}
	if tcp, ok := p.listener.ops.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		p.log.Warn("certificates of private authorities will say that CRLs and OCSP answers are where nobody finds them: set --pki-url", "address", tcp)
	}
	return url(false, p.listener.ops.Addr())
}

// run serves until ctx ends or one of the servers fails.
func (p *controlPlane) run(ctx context.Context, stdout io.Writer) error {
	apiTLS := !isLoopback(p.listener.api.Addr()) && !p.config.Insecure
	apiServer := awsapi.NewServer(checkHost(measured(p.api, p.metrics), p.listener.api.Addr()), p.log)
	opsServer := awsapi.NewServer(withPublisher(p.pca.Publisher(), checkHost(p.ops.handler(p.metrics), p.listener.ops.Addr())), p.log)
	ready := fmt.Sprintf("ready api=%s xds=%s ops=%s\n", url(apiTLS, p.listener.api.Addr()), p.listener.xds.Addr(), url(false, p.listener.ops.Addr()))
	api := p.listener.api
	if apiTLS {
		api = tls.NewListener(api, p.tls.config("h2", "http/1.1"))
	}

	group, running := errgroup.WithContext(ctx)
	serveHTTP(group, running, "API", apiServer, api)
	serveHTTP(group, running, "operations", opsServer, p.listener.ops)
	group.Go(func() error { return p.xds.Serve(running, p.listener.xds) })
	group.Go(func() error { return p.pca.Run(running) }) // CRLs of authorities from before --acm aws, too
	if p.mirror != nil {
		group.Go(func() error { return p.mirror.Run(running) })
	} else {
		group.Go(func() error { return p.acm.Run(running) })
		group.Go(func() error { return p.rotator.Run(running) })
	}
	group.Go(func() error { return p.own.Run(running) })
	group.Go(func() error {
		<-running.Done()
		p.ops.end()
		return nil
	})
	p.ops.keys = p.pca.KeysUsable
	p.pca.CheckKeys(running) // or probes would find it not ready for a moment
	p.ops.serving(p.store)
	if _, err := io.WriteString(stdout, ready); err != nil {
		return fmt.Errorf("print the ready line: %w", err)
	}
	p.log.Info("serving", "version", buildVersion(), "api", p.listener.api.Addr(), "xds", p.listener.xds.Addr(), "ops", p.listener.ops.Addr())
	err := group.Wait()
	p.log.Info("ended", "error", err)
	return err
}

// serveHTTP adds a server to the group: it ends with the group's context, and
// the group with it.
func serveHTTP(group *errgroup.Group, ctx context.Context, what string, s *http.Server, l net.Listener) {
	group.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", what, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if err := s.Shutdown(bounded); err != nil {
			return s.Close()
		}
		return nil
	})
}
