// Command barestream is the cheapest ADS-shaped Go server there can be: every
// stream gets the same ready-made bytes. It shows what grpc-go itself allows.
// Clients ask for clusters only: xdsload -mode sotw -types cds. With -keys every
// stream gets a new key on P-256 and a certificate for it instead, made for it
// alone: what a fleet's certificates cost to renew at least.
//
//	POST /change   sends every stream a message, with the form value marker in it
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/bench/adswire"
)

// hub holds the message of the hour and who wants it.
type hub struct {
	size   int
	signer *signer // nil: everybody gets the same

	mu          sync.Mutex
	generation  int
	message     []byte
	subscribers map[chan struct{}]struct{}
}

// change makes a new message and wakes every stream. The marker is in it.
func (h *hub) change(marker string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation++
	var err error
	if h.message, err = message(h.generation, marker+strings.Repeat("x", h.size)); err != nil {
		return err
	}
	for wake := range h.subscribers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// message is a cluster with a text in it, as it goes over the wire.
func message(generation int, text string) ([]byte, error) {
	wrapped, err := anypb.New(&clusterv3.Cluster{Name: "c", AltStatName: text})
	if err != nil {
		return nil, err
	}
	version := strconv.Itoa(generation)
	return proto.Marshal(&discoveryv3.DiscoveryResponse{VersionInfo: version, Nonce: version,
		TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Resources: []*anypb.Any{wrapped}})
}

func (h *hub) current() ([]byte, error) {
	h.mu.Lock()
	generation, ready := h.generation, h.message
	h.mu.Unlock()
	if h.signer == nil {
		return ready, nil
	}
	pair, err := h.signer.pair()
	if err != nil {
		return nil, err
	}
	return message(generation, pair)
}

// stream sends the message now and after every change. Requests and ACKs are
// read and dropped.
func (h *hub) stream(_ any, s grpc.ServerStream) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	h.mu.Lock()
	h.subscribers[wake] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subscribers, wake)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var f adswire.Frame
		for s.RecvMsg(&f) == nil {
		}
	}()
	for {
		select {
		case <-done:
			return io.EOF
		case <-wake:
			message, err := h.current()
			if err == nil {
				err = s.SendMsg(&adswire.Frame{Bytes: message})
			}
			if err != nil {
				return err
			}
		}
	}
}

func main() {
	size := flag.Int("size", 400, "payload bytes in the pushed resource")
	certificate := flag.String("tls-cert", "", "server certificate; empty: no TLS")
	key := flag.String("tls-key", "", "its key")
	keys := flag.Bool("keys", false, "a new key and certificate for every stream instead")
	flag.Parse()
	h := &hub{size: *size, subscribers: map[chan struct{}]struct{}{}}
	if *keys {
		var err error
		if h.signer, err = newSigner(); err != nil {
			log.Fatal(err)
		}
	}
	if err := h.change(""); err != nil {
		log.Fatal(err)
	}
	opts := []grpc.ServerOption{grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10), grpc.MaxConcurrentStreams(1 << 20)}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})))
	}
	encoding.RegisterCodecV2(adswire.Codec{})
	g := grpc.NewServer(opts...)
	g.RegisterService(&grpc.ServiceDesc{ServiceName: adswire.Service, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "StreamAggregatedResources", Handler: h.stream, ServerStreams: true, ClientStreams: true}}}, nil)
	http.HandleFunc("POST /change", func(w http.ResponseWriter, r *http.Request) {
		if err := h.change(r.FormValue("marker")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
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
