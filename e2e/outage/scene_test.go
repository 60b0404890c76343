// Package outage takes the control plane away from real Envoys under load, and
// brings it back as it was, old, in part or empty: no request may fail while
// Envoy lives, nothing is taken away that no change explains, and the next
// change arrives. It follows facts/reliability.md 0 and 4B, and design.md 6.
package outage

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

const (
	appName = "hello"
	rawPort = 9000 // of the TCP service, and where the client reaches it

	// outage is how long the control plane is away.
	outage = 8 * time.Second
	// returnWithin is what a proxy gets to be connected again: its pauses
	// between attempts have grown to 8 s by then.
	returnWithin = 20 * time.Second
	// changeWithin is what a change gets to take effect.
	changeWithin = 10 * time.Second
)

const (
	clientResource = "mesh/m/virtualNode/client"
	webResource    = "mesh/m/virtualNode/web"
)

// scene is a server, a client node and the node "web", each with a real Envoy
// and TLS from certificates in files on both sides, and a link between server
// and agents that a test can cut. It lives as long as the test that made it;
// its cases come one after the other.
type scene struct {
	lane        *testing.T
	server      *meshtest.Server
	link        *meshtest.Link
	client, web *meshtest.Agent
	credentials map[string]string // files, by resource

	root                   string
	certificate, clientOwn meshtest.Certificate
	services               []string // that the client uses beside the usual ones
	changes                int
	accepted               bool // an operator has accepted a shrink
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneAt(t, meshtest.StartServer(t, meshtest.ServerOptions{}))
}

// newSceneAt is newScene at a server that the test has started; env are more
// variables of the agents.
func newSceneAt(t *testing.T, server *meshtest.Server, env ...string) *scene {
	t.Helper()
	s := &scene{lane: t, server: server, link: meshtest.NewLink(t, server.XDS), credentials: map[string]string{}}
	n := meshtest.NewNetwork(t)
	authority := meshtest.NewAuthority(t, "mesh")
	s.root, s.certificate, s.clientOwn = authority.Root, authority.Issue(t, "web.local"), authority.Issue(t, "client.local")
	app := meshtest.StartApp(t, appName)
	s.apply(t)
	agent := func(resource, hostname string, more meshtest.AgentOptions) *meshtest.Agent {
		s.credentials[resource] = filepath.Join(t.TempDir(), "credentials")
		key := s.newCredentials(t, resource)
		more.Resource, more.Key, more.XDS, more.DNS = resource, &key, s.link.Address, n.DNS.Address()
		more.Address = n.Address(t, hostname)
		// From a file, which may change while the agent runs.
		more.Env = append(env, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE="+s.credentials[resource])
		return meshtest.StartAgent(t, s.server, more)
	}
	s.web = agent(webResource, "web.local", meshtest.AgentOptions{Apps: map[int]int{8080: app.Port, 8081: app.Port, rawPort: app.Port}})
	s.client = agent(clientResource, "client.local", meshtest.AgentOptions{TCPEgress: []string{fmt.Sprintf("raw.local:%d=%d", rawPort, rawPort)}})
	s.web.WaitReady(t)
	s.client.WaitReady(t)
	s.ready(t)
	return s
}

// newCredentials lays new credentials where the proxy's agent finds them.
func (s *scene) newCredentials(t testing.TB, resource string) meshtest.Key {
	t.Helper()
	key := s.server.ProxyCredentials(t, resource)
	text := "[default]\naws_access_key_id = " + key.ID + "\naws_secret_access_key = " + key.Secret + "\n"
	if err := os.WriteFile(s.credentials[resource], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return key
}

// apply makes the mesh, or brings back what of it is gone.
func (s *scene) apply(t testing.TB) {
	t.Helper()
	s.server.Apply(t, `
{mesh: m, spec: {}}
---
`+s.webNode()+`
---
{virtualRouter: hello, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}}
---
{virtualRouter: plain, spec: {listeners: [{portMapping: {port: 8081, protocol: http}}]}}
---
{virtualRouter: raw, spec: {listeners: [{portMapping: {port: 9000, protocol: tcp}}]}}
---
{route: load, virtualRouter: hello, spec: {httpRoute: {match: {prefix: /load}, action: {weightedTargets: [{virtualNode: web, weight: 1, port: 8080}]}}}}
---
{route: load, virtualRouter: plain, spec: {httpRoute: {match: {prefix: /load}, action: {weightedTargets: [{virtualNode: web, weight: 1, port: 8081}]}}}}
---
{route: load, virtualRouter: raw, spec: {tcpRoute: {action: {weightedTargets: [{virtualNode: web, weight: 1, port: 9000}]}}}}
---
{virtualService: hello.local, spec: {provider: {virtualRouter: {virtualRouterName: hello}}}}
---
{virtualService: plain.local, spec: {provider: {virtualRouter: {virtualRouterName: plain}}}}
---
{virtualService: raw.local, spec: {provider: {virtualRouter: {virtualRouterName: raw}}}}
---
`+s.clientNode())
}

// webNode is web's document.
func (s *scene) webNode() string {
	return `
mesh: m
virtualNode: web
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: &mutual
      mode: STRICT
      certificate: {file: {certificateChain: ` + s.certificate.Chain + `, privateKey: ` + s.certificate.Key + `}}
      validation: {trust: {file: {certificateChain: ` + s.root + `}}}
    timeout: {http: {perRequest: {unit: s, value: ` + fmt.Sprint(15+s.changes) + `}}}
  - portMapping: {port: 8081, protocol: http}
  - portMapping: {port: 9000, protocol: tcp}
    tls: *mutual
  serviceDiscovery: {dns: {hostname: web.local}}
`
}

// clientNode is the client's document. It demands TLS for the ports that have it.
func (s *scene) clientNode() string {
	var backends []string
	for _, service := range append([]string{"hello.local", "plain.local", "raw.local"}, s.services...) {
		backends = append(backends, "{virtualService: {virtualServiceName: "+service+"}}")
	}
	return `
mesh: m
virtualNode: client
spec:
  backendDefaults:
    clientPolicy:
      tls:
        ports: [8080, 9000]
        certificate: {file: {certificateChain: ` + s.clientOwn.Chain + `, privateKey: ` + s.clientOwn.Key + `}}
        validation: {trust: {file: {certificateChain: ` + s.root + `}}}
  backends: [` + strings.Join(backends, ", ") + `]
`
}

// newService makes another service of web and has the client use it.
func (s *scene) newService(t testing.TB, name string) {
	t.Helper()
	if !slices.Contains(s.services, name) { // an earlier case may have left it
		s.services = append(s.services, name)
	}
	s.server.Apply(t, "mesh: m\nvirtualService: "+name+"\nspec: {provider: {virtualRouter: {virtualRouterName: hello}}}\n---\n"+s.clientNode())
}

// ready waits until all streams are served once.
func (s *scene) ready(t testing.TB) {
	t.Helper()
	meshtest.Eventually(t, 30*time.Second, func(context.Context) error {
		for _, stream := range s.streams() {
			if err := stream.send(http.DefaultClient); err != nil {
				return err
			}
		}
		return nil
	})
}

// nextChange is what every case ends with: a new service with a new route for
// the client, and another timeout of web's listener, take effect.
func (s *scene) nextChange(t testing.TB) {
	t.Helper()
	s.changes++
	service, route := fmt.Sprintf("next-%d.local", s.changes), fmt.Sprintf("next-%d", s.changes)
	s.server.Apply(t, "mesh: m\nvirtualRouter: hello\nroute: "+route+`
spec: {httpRoute: {match: {prefix: /`+route+`}, action: {weightedTargets: [{virtualNode: web, weight: 1, port: 8080}]}}}`)
	s.server.Apply(t, s.webNode())
	s.newService(t, service)
	began := time.Now()
	meshtest.Eventually(t, changeWithin, func(context.Context) error { return s.get(service+":8080", "/"+route) })
	t.Logf("the next change took %s", time.Since(began).Round(time.Millisecond))
	s.settled(t)
}

// dropService takes away the newest service of newService.
func (s *scene) dropService(t testing.TB) (name string) {
	t.Helper()
	last := len(s.services) - 1
	name = s.services[last]
	s.services = s.services[:last]
	s.server.Apply(t, s.clientNode()+"\n---\n{virtualService: "+name+", spec: null}")
	return name
}

// gone waits until a service is not served any more.
func (s *scene) gone(t testing.TB, service string) {
	t.Helper()
	meshtest.Eventually(t, changeWithin, func(context.Context) error {
		if s.get(service+":8080", "/load") == nil {
			return fmt.Errorf("%s is still there", service)
		}
		return nil
	})
}

// settled waits until both proxies are connected and hold what they are to hold.
func (s *scene) settled(t testing.TB) {
	t.Helper()
	s.server.WaitSettled(t, 2)
}

// bothReady fails the test if a proxy says that it is not ready.
func (s *scene) bothReady(t testing.TB) {
	t.Helper()
	for _, a := range []*meshtest.Agent{s.client, s.web} {
		if _, err := a.Admin(t.Context(), "/ready"); err != nil {
			t.Errorf("%s is not ready: %v", a.Name, err)
		}
	}
}

// during is the test of a case, for processes that outlive the case: they end
// with the lane.
func (s *scene) during(t *testing.T) testing.TB { return lasting{TB: s.lane, now: t} }

// lasting cleans up with one test and fails another.
type lasting struct {
	testing.TB
	now *testing.T
}

func (l lasting) Helper()                   { l.now.Helper() }
func (l lasting) Error(args ...any)         { l.now.Helper(); l.now.Error(args...) }
func (l lasting) Errorf(f string, a ...any) { l.now.Helper(); l.now.Errorf(f, a...) }
func (l lasting) Fatal(args ...any)         { l.now.Helper(); l.now.Fatal(args...) }
func (l lasting) Fatalf(f string, a ...any) { l.now.Helper(); l.now.Fatalf(f, a...) }
