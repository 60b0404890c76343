package xds

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// large is a resource of 100 KiB.
func large(spec string) *envoy.Resource {
	r := res(spec)
	// An unknown field of the Any, which readers skip.
	r.Any = append(r.Any, appendField(nil, 15, strings.Repeat("x", 100<<10))...)
	return r
}

// TestASlowReaderIsCutOff: a proxy that takes nothing is ended, costs at most a
// message or two meanwhile, and disturbs nobody.
func TestASlowReaderIsCutOff(t *testing.T) {
	ended := make(chan error, 10)
	r := newRig(t, func(r *rig) {
		r.handler.SendTimeout = 300 * time.Millisecond
		r.acceptor.observer.Ended = func(err error) { ended <- err }
	})
	r.publish(large("cluster a 0"))
	// Its window is full after 64 KiB, and nobody reads.
	cc := r.dial(grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	slow, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: envoy.Cluster.URL()}); err != nil {
		t.Fatal(err)
	}
	good := r.connect(Delta)
	good.send(req{kind: "cluster"})
	good.ack(good.next())
	for i := 1; ; i++ {
		r.publish(large(fmt.Sprintf("cluster a %d", i)))
		good.ack(good.next())
		select {
		case <-ended:
		default:
			if i > 1000 {
				t.Fatal("the slow reader is still there")
			}
			continue
		}
		break
	}
	if n := r.feed.Streams(); n != 1 {
		t.Errorf("%d streams are attached, want the good one", n)
	}
	good.quiet()
}

// TestAProxyThatAcknowledgesNothingIsEnded: it is sent the newest for a while,
// but not without bound.
func TestAProxyThatAcknowledgesNothingIsBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.acceptor.streams = make(chan *Stream, 1) })
	r.publish(res("cluster a 0"))
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	c.expect("cluster [a 0]")
	for i := 1; i < maxFlights; i++ {
		r.publish(res(fmt.Sprintf("cluster a %d", i)))
		c.expect(fmt.Sprintf("cluster [a %d]", i))
	}
	var last string
	for i := range 100 {
		last = fmt.Sprintf("cluster a %d", maxFlights+i)
		r.publish(res(last))
	}
	c.quiet()
	s := <-r.acceptor.streams
	s.mu.Lock()
	flights, armed := len(s.flights), s.stalled != nil
	s.mu.Unlock()
	if flights > maxFlights+2 || !armed {
		t.Errorf("%d messages await their ACK; the end of the stream is due: %v", flights, armed)
	}
}

// FuzzRequest: no request, however malformed, harms the reader of requests.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(appendField(appendField(nil, deltaURL, envoy.Cluster.URL()), deltaSubscribe, "*"), true)
	f.Add(appendField(appendField(nil, sotwURL, envoy.Route.URL()), sotwNames, "r"), false)
	f.Add(appendField(nil, deltaInitial, string(appendField(appendField(nil, 1, "a"), 2, "1"))), true)
	f.Add(appendField(nil, sotwError, string(appendField(nil, 2, "goo.gle/debugproto \n: why"))), false)
	f.Fuzz(func(t *testing.T, b []byte, delta bool) {
		r := &request{delta: delta}
		if r.decode(b) != nil {
			return
		}
		if len(r.names)+len(r.unsubscribe)+len(r.initial) > len(b) || len(r.message) > maxMessage+10 {
			t.Errorf("%d names and a message of %d from %d bytes", len(r.names), len(r.message), len(b))
		}
		h := &Handler{}
		s := &Stream{handler: h, delta: delta, goal: config(web("1")...)}
		s.target = &publication{Target: Target{Config: s.goal}}
		for range 3 {
			if err := s.request(r); err != nil {
				if code := status.Code(err); code != codes.ResourceExhausted && code != codes.InvalidArgument {
					t.Errorf("status %s", code)
				}
				return
			}
			for i := 0; s.next() != nil; i++ {
				if i > 100 {
					t.Fatalf("there is always more to send: %s", s.describe())
				}
			}
		}
	})
}
