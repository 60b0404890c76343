package agent

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// sdsServer serves the secrets of `file` certificates to the agent's Envoy, in
// both forms of the protocol. A name that it does not have is answered at once
// as not there: Envoy then opens its listener, and the chain that lacks its
// secret refuses.
type sdsServer struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	files *fileSecrets
}

// sdsStream is what one stream of Envoy asks for and has.
type sdsStream struct {
	files   *fileSecrets
	names   map[string]bool
	ask     map[string]bool   // to be answered whatever has been sent
	sent    map[string]string // versions by name
	nonce   int
	flights map[string]map[string]string // sent and not answered: versions by name, by nonce
	holds   map[string]bool              // Envoy has acknowledged a version of these
}

func newSDSStream(files *fileSecrets) *sdsStream {
	return &sdsStream{files: files, names: map[string]bool{}, ask: map[string]bool{}, sent: map[string]string{}, flights: map[string]map[string]string{}, holds: map[string]bool{}}
}

// DeltaSecrets serves an incremental stream.
func (s *sdsServer) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	state := newSDSStream(s.files)
	defer state.end()
	return serveSecrets(stream, s.files, func(r *discoveryv3.DeltaDiscoveryRequest) {
		state.answered(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
		for _, name := range r.GetResourceNamesSubscribe() {
			state.names[name], state.ask[name] = true, true
		}
		for _, name := range r.GetResourceNamesUnsubscribe() {
			delete(state.names, name)
			delete(state.ask, name)
			delete(state.sent, name)
			state.drop(name)
		}
	}, func() error {
		due, missing := state.due()
		if len(due) == 0 && len(missing) == 0 {
			return nil
		}
		response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: envoy.Secret.URL(), RemovedResources: missing, Nonce: state.flight()}
		for _, name := range slices.Sorted(maps.Keys(due)) {
			content, version, _ := s.files.get(name)
			response.Resources = append(response.Resources, &discoveryv3.Resource{Name: name, Version: version, Resource: content})
			state.flights[response.Nonce][name], state.sent[name] = version, version
		}
		return stream.Send(response)
	})
}

// StreamSecrets serves a state-of-the-world stream.
func (s *sdsServer) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	state := newSDSStream(s.files)
	defer state.end()
	return serveSecrets(stream, s.files, func(r *discoveryv3.DiscoveryRequest) {
		state.answered(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
		asked := map[string]bool{}
		for _, name := range r.GetResourceNames() {
			asked[name] = true
			if !state.names[name] {
				state.ask[name] = true
			}
		}
		for name := range state.names {
			if !asked[name] {
				state.drop(name)
			}
		}
		state.names = asked
	}, func() error {
		due, _ := state.due()
		if len(due) == 0 {
			return nil // there is no way to say that a secret is not there
		}
		response := &discoveryv3.DiscoveryResponse{TypeUrl: envoy.Secret.URL(), Nonce: state.flight()}
		var versions []string
		for _, name := range slices.Sorted(maps.Keys(state.names)) {
			content, version, _ := s.files.get(name)
			if content == nil {
				continue
			}
			response.Resources = append(response.Resources, content)
			versions = append(versions, version)
			state.flights[response.Nonce][name], state.sent[name] = version, version
		}
		response.VersionInfo = strings.Join(versions, ".")
		return stream.Send(response)
	})
}

// due are the secrets to send, and the names asked for that are not there.
func (s *sdsStream) due() (due map[string]bool, missing []string) {
	due = map[string]bool{}
	for name := range s.names {
		content, version, _ := s.files.get(name)
		switch {
		case content == nil && mesh.IsOwnCertificate(name):
			// It comes within the time that Envoy waits for it, or Envoy goes on.
		case content == nil && s.ask[name]:
			missing = append(missing, name)
		case content != nil && (s.ask[name] || s.sent[name] != version):
			due[name] = true
		}
	}
	clear(s.ask)
	slices.Sort(missing)
	return due, missing
}

// flight makes a nonce whose answer is awaited.
func (s *sdsStream) flight() (nonce string) {
	s.nonce++
	nonce = strconv.Itoa(s.nonce)
	s.flights[nonce] = map[string]string{}
	return nonce
}

func (s *sdsStream) answered(nonce, message string, refused bool) {
	for name, version := range s.flights[nonce] {
		switch {
		case refused:
			s.files.envoyRefused(name, version, message)
		case !s.holds[name]:
			s.holds[name] = true
			s.files.envoyHolds(name, 1)
		}
	}
	delete(s.flights, nonce)
}

// drop: Envoy does not hold a secret any longer.
func (s *sdsStream) drop(name string) {
	if s.holds[name] {
		delete(s.holds, name)
		s.files.envoyHolds(name, -1)
	}
}

// end: Envoy has gone, and with it what it held.
func (s *sdsStream) end() {
	for name := range s.holds {
		s.drop(name)
	}
}

// serveSecrets is the life of a stream: requests and changes of files, one at a
// time, each followed by what is due.
func serveSecrets[Request any](stream interface {
	grpc.ServerStream
	Recv() (*Request, error)
}, files *fileSecrets, request func(*Request), push func() error) error {
	wake := make(chan struct{}, 1)
	defer files.subscribe(wake)()
	requests, failed := make(chan *Request), make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case r := <-requests:
			request(r)
		case <-wake:
		case <-failed:
			return nil
		case <-stream.Context().Done():
			return nil
		}
		if err := push(); err != nil {
			return err
		}
	}
}
