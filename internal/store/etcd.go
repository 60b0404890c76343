package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// callTimeout bounds one request to etcd. It is longer than etcd's own 5 s, so
// that its answer is heard.
const callTimeout = 8 * time.Second

// embeddedKeys and externalKeys bound the conditions of one transaction, and its
// writes: the first is what the embedded etcd is told, the other what one has
// that is not told otherwise (--max-txn-ops).
const embeddedKeys, externalKeys = 4096, 128

// MostKeys is how many conditions one transaction may have, and how many keys it
// may write. An object, its secret and a change record are a key each.
func (s *Store) MostKeys() int {
	if s.embedded() {
		return embeddedKeys
	}
	return externalKeys
}

// reconnect is how a client tries again to reach an external etcd that was away.
// gRPC's own pauses grow to two minutes, for which a server would not serve
// although etcd is there.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// electTime bounds how long the embedded etcd takes to elect itself once its
// files are read. It needs 0.2 s; if it never does, its log has lost the only
// member.
const electTime = 15 * time.Second

// startEtcd runs an etcd of one member in this process. It listens nowhere,
// neither on TCP nor on a Unix socket: the client calls it directly.
func startEtcd(ctx context.Context, dir string, unsafeNoFsync bool, log *slog.Logger) (*clientv3.Client, func(), error) {
	zapLog, quiet := zapToSlog(log)
	c := embed.NewConfig()
	c.Dir = dir
	c.Name = "fairlead"
	// The only member never talks to a peer; the URL is but its name.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls = []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLog)
	// A single member elects itself, so that short ticks only shorten the start.
	c.TickMs, c.ElectionMs = 20, 100
	// Revisions, not hours: how much is kept must not depend on how busy the
	// store is. Whoever watches and falls further behind lists again.
	c.AutoCompactionMode = embed.CompactorModeRevision
	c.AutoCompactionRetention = "50000"
	c.QuotaBackendBytes = 8 << 30
	c.MaxRequestBytes = 8 << 20
	c.MaxTxnOps = embeddedKeys
	// Nobody has to catch up with a single member.
	c.SnapshotCount = 10_000
	c.SnapshotCatchUpEntries = 100
	c.UnsafeNoFsync = unsafeNoFsync

	server, err := startServer(c)
	if err != nil {
		return nil, nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	stop := func() {
		quiet()
		server.Close()
	}
	late := time.NewTimer(electTime)
	defer late.Stop()
	select {
	case <-server.Server.ReadyNotify():
	case <-late.C:
		stop()
		return nil, nil, fmt.Errorf("start etcd in %s: it does not become leader of itself: files are lost or damaged; restore a backup: %w", dir, ErrUnavailable)
	case err := <-server.Err():
		stop()
		return nil, nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	case <-ctx.Done():
		stop()
		return nil, nil, fmt.Errorf("start etcd in %s: %w", dir, ctx.Err())
	}
	client := v3client.New(server.Server)
	return client, func() {
		quiet()
		// An error here only says that the client was told to end.
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			log.Warn("etcd client ended with an error", "error", err)
		}
		server.Close()
	}, nil
}

// startServer turns a panic of etcd into an error: that is how it meets some
// kinds of damaged files. Nothing of it is used after that; the caller ends.
func startServer(c *embed.Config) (server *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			server, err = nil, fmt.Errorf("its files are lost or damaged; restore a backup: etcd panics: %v: %w", p, ErrUnavailable)
		}
	}()
	return embed.StartEtcd(c)
}

// dialEtcd connects to an external etcd. It does not wait for it to answer.
func dialEtcd(endpoints []string, log *slog.Logger) (*clientv3.Client, func(), error) {
	zapLog, quiet := zapToSlog(log)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          callTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		PermitWithoutStream:  true,
		Logger:               zapLog,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: callTimeout})},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to etcd %q: %w", endpoints, err)
	}
	return client, func() {
		quiet()
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			log.Warn("etcd client ended with an error", "error", err)
		}
	}, nil
}

// storeError turns what etcd says into the errors of this package. A nil error
// stays nil; the end of a context can still be told with errors.Is.
func storeError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrRequestTooLarge) || errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%s: %w: %w", doing, ErrTooLarge, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}
