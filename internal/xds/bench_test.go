package xds

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fairlead/fairlead/internal/envoy"
)

// BenchmarkFanout has 1,000 proxies on TCP connections with TLS of their own,
// in this process, ten to a Feed, and changes one resource of each Config. One
// iteration is one change, acknowledged by all. The client's half of the work is
// in the figures, also in cpu-ms/op.
func BenchmarkFanout(b *testing.B) {
	for _, n := range []int{1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchmarkFanout(b, n) })
	}
}

func benchmarkFanout(b *testing.B, n int) {
	const perFeed = 10
	feeds := make([]*Feed, n/perFeed)
	for i := range feeds {
		feeds[i] = &Feed{}
	}
	var accepted atomic.Int64
	r := newRig(b, func(r *rig) {
		r.acceptor.accept = func(s *Stream) error {
			i := int(accepted.Add(1)-1) / perFeed
			s.Attach(feeds[i%len(feeds)])
			return nil
		}
		r.acceptor.feed = nil
	})
	base := benchConfig("first")
	for _, f := range feeds {
		f.Publish(Target{Config: base})
	}
	var acked sync.WaitGroup
	var latency []time.Duration
	var mu sync.Mutex
	var began atomic.Pointer[time.Time]
	before := rss()
	acked.Add(n)
	for range n {
		startRawProxy(b, r, func() {
			if t := began.Load(); t != nil {
				d := time.Since(*t)
				mu.Lock()
				latency = append(latency, d)
				mu.Unlock()
			}
			acked.Done()
		})
	}
	acked.Wait()
	runtime.GC()
	memory := float64(rss()-before) / float64(n) / 1024
	cpu := processCPU()
	b.ResetTimer()
	for i := range b.N {
		c := *base
		c.Revision++
		c.Resources[envoy.Route] = list{res("route r "+fmt.Sprint("v", i), "cluster c0")}
		acked.Add(n)
		now := time.Now()
		began.Store(&now)
		for _, f := range feeds {
			own := c
			f.Publish(Target{Config: &own})
		}
		acked.Wait()
	}
	b.StopTimer()
	b.ReportMetric(memory, "KiB/proxy-both-ends")
	b.ReportMetric(float64((processCPU()-cpu).Milliseconds())/float64(b.N), "cpu-ms/op")
	slices.Sort(latency)
	if len(latency) > 0 {
		b.ReportMetric(float64(latency[len(latency)*99/100].Microseconds())/1000, "p99-ms")
	}
}

// benchConfig is ten backends behind one listener, of realistic size.
func benchConfig(version string) *envoy.Config {
	var all list
	for i := range 10 {
		name := fmt.Sprintf("c%d", i)
		cluster := res("cluster "+name+" "+version, "endpoint "+name)
		cluster.Any = append(cluster.Any, protowire.AppendString(protowire.AppendTag(nil, 15, protowire.BytesType), strings.Repeat("x", 800))...)
		all = append(all, cluster, res("endpoint "+name+" "+version))
	}
	all = append(all, res("listener l "+version, "route r"), res("route r "+version, "cluster c0"))
	return config(all...)
}

func processCPU() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// rawCodec lets a benchmark proxy send and see bytes.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// startRawProxy opens a delta stream that asks for everything and acknowledges
// every message; acked is called for each route table.
func startRawProxy(b *testing.B, r *rig, acked func()) {
	tlsConfig := credentials.NewTLS(&tls.Config{RootCAs: r.pool, MinVersion: tls.VersionTLS13})
	cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(tlsConfig),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	s, err := cc.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range makeOrder[1:] {
		m := appendField(appendField(nil, deltaURL, t.URL()), deltaSubscribe, "*")
		if err := s.SendMsg(&m); err != nil {
			b.Fatal(err)
		}
	}
	go func() {
		for {
			var in []byte
			if s.RecvMsg(&in) != nil {
				return
			}
			var url, nonce string
			_ = eachBytes(in, func(num protowire.Number, v []byte) error {
				switch num {
				case respURL:
					url = string(v)
				case respNonce:
					nonce = string(v)
				}
				return nil
			})
			m := appendField(appendField(nil, deltaURL, url), deltaNonce, nonce)
			if s.SendMsg(&m) != nil {
				return
			}
			if url == envoy.Route.URL() {
				acked()
			}
		}
	}()
}
