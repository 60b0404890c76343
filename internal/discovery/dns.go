// Package discovery answers DNS for a mesh's hostnames from a table that can be
// changed while it runs. It is what demo and tests use as a resolver; Cloud
// Map's namespaces, instances and health come later, on top of the same server.
// It decides nothing about the mesh and forwards nothing: a name that it does
// not know does not exist. It follows design.md 3 ("Names").
package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// ttl of every answer, in seconds: short, since the table may change.
const ttl = 1

// Server is a DNS server on UDP and TCP of one port. Its methods may be called
// from any goroutine.
type Server struct {
	address string
	table   atomic.Pointer[map[string][]netip.Addr]
	change  sync.Mutex // one change of the table at a time
	servers []*dns.Server
}

// Start serves at an address (host:port; port 0 takes a free one) the names of
// a table: a hostname without a trailing dot to its addresses, several separated
// by commas, IPv4 or IPv6. It returns once it answers.
func Start(address string, names map[string]string) (*Server, error) {
	s := &Server{}
	s.table.Store(&map[string][]netip.Addr{})
	for name, addresses := range names {
		if err := s.Set(name, strings.Split(addresses, ",")...); err != nil {
			return nil, err
		}
	}
	packets, listener, err := listen(address)
	if err != nil {
		return nil, err
	}
	s.address = packets.LocalAddr().String()
	failed := make(chan error, 2)
	started := make(chan struct{}, 2)
	s.servers = []*dns.Server{{PacketConn: packets}, {Listener: listener}}
	for _, server := range s.servers {
		server.Handler = dns.HandlerFunc(s.answer)
		server.NotifyStartedFunc = func() { started <- struct{}{} }
		go func() { failed <- server.ActivateAndServe() }()
	}
	for range s.servers {
		select {
		case <-started:
		case err := <-failed:
			return nil, errors.Join(fmt.Errorf("serve DNS at %s: %w", s.address, err), packets.Close(), listener.Close())
		}
	}
	return s, nil
}

// listen takes one port for both transports. A free UDP port may be taken in
// TCP: with port 0 it tries others.
func listen(address string) (net.PacketConn, net.Listener, error) {
	const attempts = 20
	var lastErr error
	for range attempts {
		packets, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("listen for DNS: %w", err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, listener, nil
		}
		lastErr = errors.Join(err, packets.Close())
		if !strings.HasSuffix(address, ":0") {
			break
		}
	}
	return nil, nil, fmt.Errorf("listen for DNS: %w", lastErr)
}

// Address is where it serves, host:port.
func (s *Server) Address() string { return s.address }

// Set gives a hostname its addresses, in place of those it had; without any the
// name exists no longer.
func (s *Server) Set(hostname string, addresses ...string) error {
	var parsed []netip.Addr
	for _, text := range addresses {
		address, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || address.Zone() != "" {
			return fmt.Errorf("set DNS name %s: %q is not an IP address", hostname, text)
		}
		parsed = append(parsed, address.Unmap())
	}
	s.change.Lock()
	defer s.change.Unlock()
	next := map[string][]netip.Addr{}
	for name, had := range *s.table.Load() {
		next[name] = had
	}
	if len(parsed) == 0 {
		delete(next, dns.CanonicalName(hostname))
	} else {
		next[dns.CanonicalName(hostname)] = parsed
	}
	s.table.Store(&next)
	return nil
}

// Close stops it.
func (s *Server) Close() error {
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.Shutdown())
	}
	return errors.Join(errs...)
}

// answer looks a question up. A known name without an address of the asked
// family is an empty answer, so that the resolver asks for the other family; an
// unknown name does not exist.
func (s *Server) answer(w dns.ResponseWriter, request *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(request)
	reply.Authoritative = true
	if len(request.Question) != 1 || request.Opcode != dns.OpcodeQuery {
		reply.SetRcode(request, dns.RcodeNotImplemented)
		w.WriteMsg(reply) //nolint:errcheck // the client asks again
		return
	}
	question := request.Question[0]
	addresses, known := (*s.table.Load())[dns.CanonicalName(question.Name)]
	if !known {
		reply.Rcode = dns.RcodeNameError
	}
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
	for _, address := range addresses {
		switch {
		case question.Qtype == dns.TypeA && address.Is4():
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
		case question.Qtype == dns.TypeAAAA && address.Is6():
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
		}
	}
	w.WriteMsg(reply) //nolint:errcheck // the client asks again
}
