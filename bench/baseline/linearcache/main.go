// Command linearcache serves resources that it reads from files over
// go-control-plane's own server, from one LinearCache per type and virtual node:
// no configuration model, no translation, no store. It shows what the library
// costs, as a floor for any Go control plane built on it.
//
// -resources is a folder of folders as xdsload -dump writes them: base, and one
// more for each change, in which some resources differ from base.
//
//	POST /change?name=FOLDER   sends what differs; the next time, sends it as it was
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

var kindURL = map[string]string{
	"cds": resourcev3.ClusterType,
	"eds": resourcev3.EndpointType,
	"lds": resourcev3.ListenerType,
	"rds": resourcev3.RouteType,
	"sds": resourcev3.SecretType,
}

// resources are what one node holds: type URL and name to Any.
type resources map[string]map[string]*anypb.Any

// load reads a folder that xdsload has dumped: node id to resources.
func load(dir string) (map[string]resources, error) {
	ids, err := filepath.Glob(filepath.Join(dir, "*.id"))
	if err != nil {
		return nil, err
	}
	nodes := map[string]resources{}
	for _, path := range ids {
		id, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		held := resources{}
		for kind, url := range kindURL {
			b, err := os.ReadFile(strings.TrimSuffix(path, "id") + kind + ".pb")
			if err != nil {
				return nil, err
			}
			var all discoveryv3.DeltaDiscoveryResponse
			if err := proto.Unmarshal(b, &all); err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			held[url] = map[string]*anypb.Any{}
			for _, r := range all.Resources {
				held[url][r.Name] = r.Resource
			}
		}
		nodes[string(id)] = held
	}
	return nodes, nil
}

// update is one resource that differs from base, decoded both ways.
type update struct {
	cache         *cachev3.LinearCache
	name          string
	base, changed types.Resource
}

// floor is the server's state: a cache per node and what changes can be made.
type floor struct {
	byNode

	mu      sync.Mutex
	updates map[string][]update
	made    map[string]bool
}

// byNode sends every request to the caches of its node.
type byNode map[string]*cachev3.MuxCache

func (b byNode) CreateWatch(r *cachev3.Request, s cachev3.Subscription, out chan cachev3.Response) (func(), error) {
	if c, ok := b[r.GetNode().GetId()]; ok {
		return c.CreateWatch(r, s, out)
	}
	return nil, fmt.Errorf("unknown node %q", r.GetNode().GetId())
}

func (b byNode) CreateDeltaWatch(r *cachev3.DeltaRequest, s cachev3.Subscription, out chan cachev3.DeltaResponse) (func(), error) {
	if c, ok := b[r.GetNode().GetId()]; ok {
		return c.CreateDeltaWatch(r, s, out)
	}
	return nil, fmt.Errorf("unknown node %q", r.GetNode().GetId())
}

func (b byNode) Fetch(context.Context, *cachev3.Request) (cachev3.Response, error) {
	return nil, fmt.Errorf("not a streaming request")
}

func newFloor(dir string) (*floor, error) {
	f := &floor{byNode: byNode{}, updates: map[string][]update{}, made: map[string]bool{}}
	base, err := load(filepath.Join(dir, "base"))
	if err != nil {
		return nil, err
	}
	for id, held := range base {
		mux := &cachev3.MuxCache{Caches: map[string]cachev3.Cache{},
			Classify:      func(r *cachev3.Request) string { return r.GetTypeUrl() },
			ClassifyDelta: func(r *cachev3.DeltaRequest) string { return r.GetTypeUrl() }}
		for url, byName := range held {
			initial := map[string]types.Resource{}
			for name, wrapped := range byName {
				if initial[name], err = wrapped.UnmarshalNew(); err != nil {
					return nil, fmt.Errorf("decode %s: %w", name, err)
				}
			}
			mux.Caches[url] = cachev3.NewLinearCache(url, cachev3.WithInitialResources(initial))
		}
		f.byNode[id] = mux
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == "base" || !e.IsDir() {
			continue
		}
		if err := f.loadChange(dir, e.Name(), base); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *floor) loadChange(dir, name string, base map[string]resources) error {
	changed, err := load(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	for id, held := range changed {
		for url, byName := range held {
			for resource, after := range byName {
				before := base[id][url][resource]
				if before != nil && bytes.Equal(before.Value, after.Value) {
					continue
				}
				if before == nil {
					return fmt.Errorf("%s adds %s to %s; only changes are served", name, resource, id)
				}
				u := update{name: resource, cache: f.byNode[id].Caches[url].(*cachev3.LinearCache)}
				if u.base, err = before.UnmarshalNew(); err != nil {
					return err
				}
				if u.changed, err = after.UnmarshalNew(); err != nil {
					return err
				}
				f.updates[name] = append(f.updates[name], u)
			}
		}
	}
	log.Printf("%s: %d resources differ", name, len(f.updates[name]))
	return nil
}

func (f *floor) change(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	updates, ok := f.updates[name]
	if !ok {
		return fmt.Errorf("no change %q", name)
	}
	f.made[name] = !f.made[name]
	for _, u := range updates {
		to := u.base
		if f.made[name] {
			to = u.changed
		}
		if err := u.cache.UpdateResource(u.name, to); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	dir := flag.String("resources", "", "folder with what to serve")
	certificate := flag.String("tls-cert", "", "server certificate; empty: no TLS")
	key := flag.String("tls-key", "", "its key")
	flag.Parse()
	f, err := newFloor(*dir)
	if err != nil {
		log.Fatal(err)
	}
	opts := []grpc.ServerOption{grpc.MaxConcurrentStreams(1 << 20), grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10)}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})))
	}
	g := grpc.NewServer(opts...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(context.Background(), f.byNode, nil))
	http.HandleFunc("POST /change", func(w http.ResponseWriter, r *http.Request) {
		if err := f.change(r.FormValue("name")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(admin, nil)) }()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("ready xds=%s admin=http://%s\n", listener.Addr(), admin.Addr())
	log.Fatal(g.Serve(listener))
}
