package mesh_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// bad are resources that the API takes and that blue's proxy cannot use, for
// reasons that only its host or its Envoy has. Each is applied next to good
// ones, and repaired later. (Clusters and endpoints that an Envoy refuses do not
// come through the API; TestEnvoyRejectsOneResource in internal/xds makes them.)
var bad = []struct {
	name string
	node string // what the node of blue has besides
	// rejects are the Envoy resources that Envoy refuses, in one message, and
	// counted is how often it counts that: once for each subscription to the type.
	rejects []string
	counted int64
	says    string // with a rejection, or of a secret
	secret  bool   // the trouble is a secret that cannot be had
	unready bool   // without it a listener of the proxy does not serve
}{
	{
		name:    "listener: an access log where there is no folder",
		node:    `{listeners: [PLAIN], backends: [BACKENDS], logging: {accessLog: {file: {path: /no/such/folder/access.log}}}}`,
		rejects: []string{"lds_egress_0.0.0.0_15001", "lds_ingress_0.0.0.0_15000"},
		counted: 1,
		says:    "unable to open file '/no/such/folder/access.log'",
	},
	{
		name:    "listener: a port that another program has",
		node:    `{listeners: [PLAIN, {portMapping: {port: 8090, protocol: http}}], backends: [BACKENDS]}`,
		rejects: []string{"lds_ingress_0.0.0.0_15000"},
		counted: 1,
		says:    "Address already in use",
	},
	{
		name:    "route: an expression that this Envoy's own limit forbids",
		node:    `{listeners: [PLAIN], backends: [BACKENDS, {virtualService: {virtualServiceName: long.local}}]}`,
		rejects: []string{"rds_egress_http_15001"},
		counted: 2,
		says:    "max program size",
	},
	{
		name:   "secret: a certificate that is not there",
		node:   `{listeners: [PLAIN, {portMapping: {port: 8091, protocol: http}, tls: {mode: STRICT, certificate: {file: {certificateChain: /no/such/chain.pem, privateKey: /no/such/key.pem}}}}], backends: [BACKENDS]}`,
		says:   "/no/such/chain.pem",
		secret: true, unready: true,
	},
	{
		name:   "secret: a trust bundle that is not there",
		node:   `{listeners: [PLAIN], backends: [BACKENDS, {virtualService: {virtualServiceName: tls.local, clientPolicy: {tls: {validation: {trust: {file: {certificateChain: /no/such/root.pem}}}}}}}]}`,
		says:   "/no/such/root.pem",
		secret: true,
	},
}

// around is what there is besides blue: the good ones.
const around = `
{virtualNode: green, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: green.local}}}}
---
{virtualNode: tls, spec: {listeners: [{portMapping: {port: 8080, protocol: http}, tls: {mode: STRICT, certificate: {file: {certificateChain: /c, privateKey: /k}}}}], serviceDiscovery: {dns: {hostname: green.local}}}}
---
{virtualRouter: long, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}}
---
{route: long, virtualRouter: long, spec: {httpRoute: {match: {path: {regex: "/(long|longer|longest|much longer than that)/[a-z]{1,20}/.*"}}, action: {weightedTargets: [{virtualNode: green, weight: 1}]}}}}
---
{virtualService: long.local, spec: {provider: {virtualRouter: {virtualRouterName: long}}}}
---
{virtualService: tls.local, spec: {provider: {virtualNode: {virtualNodeName: tls}}}}
---
{virtualService: blue.local, spec: {provider: {virtualNode: {virtualNodeName: blue}}}}
---
{virtualService: green.local, spec: {provider: {virtualNode: {virtualNodeName: green}}}}
---
{virtualNode: client, spec: {backends: [{virtualService: {virtualServiceName: blue.local}}]}}
---
{virtualNode: other, spec: {backends: [{virtualService: {virtualServiceName: green.local}}]}}`

// inBlue spells the node of blue, with a backend for each good service.
func inBlue(spec string, good []string) string {
	var backends []string
	for _, name := range good {
		backends = append(backends, "{virtualService: {virtualServiceName: "+name+"}}")
	}
	spec = strings.NewReplacer("PLAIN", "{portMapping: {port: 8080, protocol: http}}", "BACKENDS", strings.Join(backends, ", ")).Replace(spec)
	return "\n---\n{virtualNode: blue, spec: " + strings.Replace(spec, "{", "{serviceDiscovery: {dns: {hostname: blue.local}}, ", 1) + "}"
}

const (
	inMesh   = "{mesh: m, spec: {}}"
	goodBlue = `{listeners: [PLAIN], backends: [BACKENDS]}`
)

// TestBadResources applies each bad resource together with a good one for the
// same proxy. The good one must come into force, the bad one is told by name and
// never sent again, no other proxy notices, and no call fails all the while.
func TestBadResources(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	good := []string{"green.local"}
	s.Apply(t, inMesh+inBlue(goodBlue, good)+"\n---"+around)
	limit := filepath.Join(t.TempDir(), "limit.yaml")
	if err := os.WriteFile(limit, []byte("layered_runtime: {layers: [{name: limit, static_layer: {re2.max_program_size.error_level: 60}}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proxies := map[string]*meshtest.Agent{}
	for _, name := range []string{"blue", "green", "client", "other"} {
		app := meshtest.StartApp(t, name)
		proxies[name] = meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/" + name,
			Address: n.Address(t, name+".local"), Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address(),
			Env: []string{"ENVOY_RESOURCES_CONFIG_FILE=" + limit}})
	}
	taken, err := net.Listen("tcp", proxies["blue"].Options.Address+":8090")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, p := range proxies {
		p.WaitReady(t)
	}
	blue, client, other := caller{proxy: proxies["blue"]}, caller{proxy: proxies["client"]}, caller{proxy: proxies["other"]}
	toBlue := func(ctx context.Context) string { return client.call(ctx, "http", "blue.local", 8080) }
	toGreen := func(ctx context.Context) string { return other.call(ctx, "http", "green.local", 8080) }
	waitAnswer(t, toBlue, "200 blue")
	waitAnswer(t, toGreen, "200 green")

	for i, b := range bad {
		t.Run(b.name, func(t *testing.T) {
			loads := []*load{startLoad(t, toBlue, "200 blue"), startLoad(t, toGreen, "200 green")}
			before := rejections(t, proxies)
			name := fmt.Sprintf("good-%d.local", i)
			good = append(good, name)
			s.Apply(t, inMesh+serviceOf(name, "green")+inBlue(b.node, good))
			wantTold(t, s, b.rejects, b.secret, b.says)
			if !slices.Contains(b.rejects, "rds_egress_http_15001") { // one table for all services
				waitAnswer(t, func(ctx context.Context) string { return blue.call(ctx, "http", name, 8080) }, "200 green")
			}
			waitAnswer(t, func(ctx context.Context) string { return blue.call(ctx, "http", "green.local", 8080) }, "200 green")

			// Changes of the same proxy that leave the bad one alone.
			messages := rejections(t, proxies)
			for k := range 5 {
				s.Apply(t, inMesh+fmt.Sprintf("\n---\n{virtualNode: green, spec: {listeners: [{portMapping: {port: 8080, protocol: http}, outlierDetection: {maxServerErrors: %d, interval: {unit: s, value: 10}, baseEjectionDuration: {unit: s, value: 1}, maxEjectionPercent: 1}}], serviceDiscovery: {dns: {hostname: green.local}}}}", 50+10*i+k))
				s.WaitSettled(t, len(proxies))
			}
			want := maps.Clone(before)
			want["blue"] += b.counted
			if !maps.Equal(messages, want) || !maps.Equal(rejections(t, proxies), want) {
				t.Errorf("Envoys had counted %v rejections, then %v, then %v; want %v", before, messages, rejections(t, proxies), want)
			}
			for name, p := range proxies {
				_, err := p.Admin(t.Context(), "/ready")
				if unready := b.unready && name == "blue"; (err != nil) != unready || err != nil && !strings.Contains(err.Error(), b.says) {
					t.Errorf("%s: readiness %v, want it ready: %t", name, err, !unready)
				}
			}
			s.Apply(t, inMesh+inBlue(goodBlue, good))
			wantNothingTold(t, s)
			waitAnswer(t, func(ctx context.Context) string { return blue.call(ctx, "http", name, 8080) }, "200 green")
			for _, l := range loads {
				l.Stop(t)
			}
		})
	}
}

// wantTold waits until blue's trouble is told: rejected Envoy resources by
// proxy list and by problems, secrets by proxy list. Nobody else has any.
func wantTold(t *testing.T, s *meshtest.Server, rejects []string, secret bool, says string) {
	t.Helper()
	meshtest.Eventually(t, within, func(context.Context) error {
		proxies, err := s.Proxies(t)
		if err != nil {
			return err
		}
		told := trouble(proxies)
		problems, err := s.Problems(t, "m")
		if err != nil {
			return err
		}
		for _, name := range rejects {
			if !slices.ContainsFunc(told, func(line string) bool {
				return strings.HasPrefix(line, "mesh/m/virtualNode/blue "+name+": ") && strings.Contains(line, says)
			}) {
				return fmt.Errorf("no proxy rejects %s with %q: %q", name, says, told)
			}
			if !slices.ContainsFunc(problems, func(p meshtest.Problem) bool {
				return p.Resource == "virtualNode/blue" && strings.Contains(p.Message, name) && strings.Contains(p.Message, says)
			}) {
				return fmt.Errorf("no problem about %s: %s", name, show(problems))
			}
		}
		if secret && !slices.ContainsFunc(told, func(line string) bool {
			return strings.HasPrefix(line, "mesh/m/virtualNode/blue ") && strings.Contains(line, says)
		}) {
			return fmt.Errorf("no proxy lacks %s: %q", says, told)
		}
		if i := slices.IndexFunc(told, func(line string) bool { return !strings.HasPrefix(line, "mesh/m/virtualNode/blue ") }); i >= 0 {
			return fmt.Errorf("another proxy is in trouble: %s", told[i])
		}
		return nil
	})
}

func wantNothingTold(t *testing.T, s *meshtest.Server) {
	t.Helper()
	meshtest.Eventually(t, within, func(context.Context) error {
		proxies, err := s.Proxies(t)
		if err != nil {
			return err
		}
		problems, err := s.Problems(t, "m")
		if told := trouble(proxies); err == nil && len(told)+len(problems) > 0 {
			err = fmt.Errorf("still told: %q %s", told, show(problems))
		}
		return err
	})
}

// trouble is what proxies say is wrong, a line for each: who, what and why.
func trouble(proxies []meshtest.ProxyStatus) []string {
	var told []string
	for _, p := range proxies {
		for _, kind := range p.Types {
			for _, r := range kind.Rejected {
				told = append(told, p.Resource+" "+r.Name+": "+r.Message)
			}
		}
		for _, secret := range p.Report.Secrets {
			if secret.Error != "" {
				told = append(told, p.Resource+" "+secret.Name+": "+secret.Error)
			}
		}
	}
	return told
}

// rejections are how many rejections of updates each Envoy has counted.
func rejections(t *testing.T, proxies map[string]*meshtest.Agent) map[string]int64 {
	t.Helper()
	sums := map[string]int64{}
	for name, p := range proxies {
		counters, err := p.Counters(t.Context(), `update_rejected$`)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range counters {
			sums[name] += n
		}
	}
	return sums
}
