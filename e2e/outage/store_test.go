package outage

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// The keys of the store (internal/store/key.go).
const (
	recordKeys = "/fairlead/record/"
	changeKeys = "/fairlead/change/"
	shrinkKeys = "/fairlead/shrink/"
)

// withStore edits the embedded store of a server that does not run, as damage or
// a hand would: below everything that Fairlead does.
func withStore(t testing.TB, dataDir string, edit func(context.Context, *clientv3.Client)) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.Name = filepath.Join(dataDir, "etcd"), "fairlead"
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.InitialCluster = []url.URL{peer}, c.Name+"="+peer.String()
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs = 20, 100
	c.MaxTxnOps = 4096
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case <-server.Server.ReadyNotify():
	case <-ctx.Done():
		t.Fatal("the store has no leader")
	}
	client := v3client.New(server.Server)
	defer client.Close()
	edit(ctx, client)
}

// forget deletes the records that lost chooses by their path, KIND/OWNER/MESH/…,
// and the records of their changes too if nothing is to be known of them.
func forget(t testing.TB, dataDir string, changesToo bool, lost func(path string) bool) {
	t.Helper()
	withStore(t, dataDir, func(ctx context.Context, client *clientv3.Client) {
		all, err := client.Get(ctx, recordKeys, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		var deletions []clientv3.Op
		for _, kv := range all.Kvs {
			path := strings.TrimPrefix(string(kv.Key), recordKeys)
			if !lost(path) {
				continue
			}
			deletions = append(deletions, clientv3.OpDelete(string(kv.Key)))
			if changesToo {
				deletions = append(deletions, clientv3.OpDelete(changeKeys+path))
			}
		}
		if len(deletions) == 0 {
			t.Fatal("nothing was lost")
		}
		if _, err := client.Txn(ctx).Then(deletions...).Commit(); err != nil {
			t.Fatal(err)
		}
	})
}

// expire has what an operator accepted in an earlier case be over. It would hold
// for ten minutes.
func expire(t testing.TB, dataDir string) {
	t.Helper()
	withStore(t, dataDir, func(ctx context.Context, client *clientv3.Client) {
		if _, err := client.Delete(ctx, shrinkKeys, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	})
}
