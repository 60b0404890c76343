package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/bench/loadrun"
	"github.com/fairlead/fairlead/internal/awsapi"
)

// fleet is all proxies of a run.
type fleet struct {
	opt     *options
	roots   *x509.CertPool // nil: no TLS
	cache   *needsCache
	proxies []*proxy
	hangUp  func() // cuts every connection and waits until all are gone
	flow    traffic
	watch   atomic.Pointer[watch]

	mu       sync.Mutex
	received []float64 // ms from the start of the round
	acked    []float64
	expect   int
	reached  chan struct{} // closed at the expected count

	retries  atomic.Int64
	firstErr atomic.Pointer[string]
}

func newFleet(o *options) (*fleet, error) {
	f := &fleet{opt: o, cache: &needsCache{seed: maphash.MakeSeed()}}
	if o.ca == "" {
		return f, nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	f.roots = x509.NewCertPool()
	if !f.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", o.ca)
	}
	return f, nil
}

func (f *fleet) hit(w *watch, received, acked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch.Load() != w { // too late for its round
		return
	}
	f.received = append(f.received, ms(received.Sub(w.started)))
	f.acked = append(f.acked, ms(acked.Sub(w.started)))
	if len(f.acked) == f.expect {
		close(f.reached)
	}
}

func (f *fleet) retried(p *proxy, err error) {
	f.retries.Add(1)
	text := fmt.Sprintf("proxy %d: %v", p.index, err)
	f.firstErr.CompareAndSwap(nil, &text)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (f *fleet) identity(i int) *loadrun.Identity {
	if len(f.opt.ids) == 0 {
		return nil
	}
	return &f.opt.ids[i%len(f.opt.ids)]
}

func (f *fleet) dial(i int) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if f.roots != nil {
		transport = credentials.NewTLS(&tls.Config{RootCAs: f.roots, MinVersion: tls.VersionTLS12})
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithReadBufferSize(8 << 10), grpc.WithWriteBufferSize(4 << 10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1 << 30)),
	}
	if id := f.identity(i); id != nil {
		key := aws.Credentials{AccessKeyID: id.AccessKeyID, SecretAccessKey: id.SecretAccessKey}
		opts = append(opts, grpc.WithPerRPCCredentials(awsapi.StreamSigner{Region: f.opt.region,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return key, nil })}))
	}
	return grpc.NewClient("passthrough:///"+f.opt.addr, opts...)
}

func (f *fleet) newProxy(i int) (*proxy, error) {
	id, err := expand(f.opt.nodeID, map[string]int{"I": i, "Mod": i % 100})
	if err != nil {
		return nil, err
	}
	if own := f.identity(i); own != nil {
		id = own.Resource
	}
	metadata := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(f.opt.metadata), metadata); err != nil {
		return nil, fmt.Errorf("read node metadata: %w", err)
	}
	p := &proxy{fleet: f, index: i, synced: make(chan struct{}), node: &corev3.Node{
		Id: id, Cluster: id, Metadata: metadata, UserAgentName: "envoy",
		UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}}},
	}}
	p.unsentNode = p.node
	if f.opt.dump != "" {
		p.dump = &dump{}
	}
	return p, nil
}

// connect brings up all proxies, at most parallel at a time (0: all at once),
// and waits until each holds its configuration.
func (f *fleet) connect(ctx context.Context, parallel int) (loadrun.Connect, error) {
	o := f.opt
	if err := f.prepare(); err != nil {
		return loadrun.Connect{}, err
	}
	if parallel <= 0 {
		parallel = o.n
	}
	var rep loadrun.Connect
	if o.serverPID > 0 {
		rep.RSSBefore = memory(o.serverPID, "VmRSS")
	}
	deadline, cancel := context.WithTimeout(ctx, o.connectTimeout)
	defer cancel()
	before, began := readCost(o.serverPID), time.Now()
	if err := f.open(ctx, deadline, parallel); err != nil {
		return rep, err
	}
	rep.Cost = before.until(readCost(o.serverPID), o.serverPID)
	f.countSynced(&rep, began)

	idle := readCost(o.serverPID)
	time.Sleep(o.settle)
	rep.IdleCost = idle.until(readCost(o.serverPID), o.serverPID)
	if o.serverPID > 0 {
		rep.RSSAfter = memory(o.serverPID, "VmRSS")
		rep.RSSPerProxyK = (rep.RSSAfter - rep.RSSBefore) * 1024 / float64(max(1, rep.Synced))
	}
	if rep.Synced < o.n {
		why := "time ran out"
		if text := f.firstErr.Load(); text != nil {
			why = *text
		}
		return rep, fmt.Errorf("%d of %d proxies synced: %s", rep.Synced, o.n, why)
	}
	return rep, nil
}

func (f *fleet) prepare() error {
	f.proxies = nil
	f.retries.Store(0)
	f.flow.take()
	for i := range f.opt.n {
		p, err := f.newProxy(i)
		if err != nil {
			return err
		}
		f.proxies = append(f.proxies, p)
	}
	return nil
}

// open starts every proxy on a connection of its own and returns when all are
// synced or have ended, or at the deadline.
func (f *fleet) open(ctx, deadline context.Context, parallel int) error {
	ctx, cut := context.WithCancel(ctx)
	var connections []*grpc.ClientConn
	var running sync.WaitGroup
	f.hangUp = func() {
		cut()
		for _, conn := range connections {
			_ = conn.Close() // fails only if it is closed
		}
		running.Wait()
	}
	slots := make(chan struct{}, parallel)
	var waiting sync.WaitGroup
	for i, p := range f.proxies {
		select {
		case slots <- struct{}{}:
		case <-deadline.Done():
			return nil
		}
		conn, err := f.dial(i)
		if err != nil {
			return err
		}
		connections = append(connections, conn)
		ended := make(chan struct{})
		running.Go(func() {
			defer close(ended)
			if err := p.run(ctx, conn); err != nil && ctx.Err() == nil {
				f.retried(p, err)
			}
		})
		waiting.Go(func() {
			select {
			case <-p.synced:
			case <-ended:
			case <-deadline.Done():
			}
			<-slots
		})
	}
	waiting.Wait()
	return nil
}

func (f *fleet) countSynced(rep *loadrun.Connect, began time.Time) {
	var per []float64
	last := began
	for _, p := range f.proxies {
		select {
		case <-p.synced:
			per = append(per, ms(p.syncedAt.Sub(p.connectAt)))
			if p.syncedAt.After(last) {
				last = p.syncedAt
			}
		default:
		}
	}
	rep.Synced = len(per)
	rep.AllSyncedMs = ms(last.Sub(began))
	rep.PerProxyMs = loadrun.QuantilesOf(per)
	rep.Retries = f.retries.Load()
	rep.Received = f.flow.take()
	rep.BytesPer = float64(rep.Received.AllBytes) / float64(max(1, rep.Synced))
}

// round makes a change and waits until it has reached the expected proxies.
func (f *fleet) round(ctx context.Context, c loadrun.Change, req loadrun.Request, data roundData) (loadrun.Round, error) {
	o := f.opt
	rep := loadrun.Round{Round: data.Round}
	f.mu.Lock()
	f.received, f.acked = make([]float64, 0, o.n), make([]float64, 0, o.n)
	f.expect, f.reached = c.Expect, make(chan struct{})
	f.mu.Unlock()
	f.flow.take()
	for _, p := range f.proxies {
		p.roundBytes.Store(0)
	}
	kinds, err := parseKinds(c.Types)
	if err != nil {
		return rep, err
	}
	w := &watch{kinds: kinds}
	if data.Marker != "" {
		w.marker = []byte(data.Marker)
	}
	before := readCost(o.serverPID)
	w.started = time.Now()
	f.watch.Store(w)
	if err := o.send(ctx, req, data); err != nil {
		return rep, err
	}
	rep.TriggerMs = ms(time.Since(w.started))
	timeout := time.NewTimer(o.roundTimeout)
	defer timeout.Stop()
	select {
	case <-f.reached:
	case <-timeout.C:
		err = errors.New("timeout")
	}
	time.Sleep(o.pause)
	rep.Cost = before.until(readCost(o.serverPID), o.serverPID)
	f.watch.Store(nil)
	f.countRound(&rep, w)
	if err != nil {
		err = fmt.Errorf("%s, round %d reached %d of %d proxies: %w", c.Name, data.Round, rep.Reached, c.Expect, err)
	}
	return rep, err
}

func (f *fleet) countRound(rep *loadrun.Round, w *watch) {
	rep.Received = f.flow.take()
	for _, p := range f.proxies {
		if p.hitIn.Load() != w {
			rep.OtherBytes += p.roundBytes.Load()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rep.Reached = len(f.acked)
	answered := make([]float64, len(f.received))
	for i, at := range f.received {
		answered[i] = max(0, at-rep.TriggerMs)
	}
	rep.ReceivedMs, rep.AnsweredMs, rep.AckedMs = loadrun.QuantilesOf(f.received), loadrun.QuantilesOf(answered), loadrun.QuantilesOf(f.acked)
	rep.BytesPer = float64(rep.Received.AllBytes-rep.OtherBytes) / float64(max(1, rep.Reached))
}

// dumpAll writes what every proxy was sent.
func (f *fleet) dumpAll() error {
	if err := os.MkdirAll(f.opt.dump, 0o700); err != nil {
		return err
	}
	for _, p := range f.proxies {
		if err := p.dump.write(f.opt.dump, p.index, p.node.Id); err != nil {
			return err
		}
	}
	return nil
}
