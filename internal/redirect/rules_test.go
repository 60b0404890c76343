package redirect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// variables looks up in a table.
func variables(table map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := table[name]
		return value, ok
	}
}

func TestRules(t *testing.T) {
	for _, test := range []struct {
		about string
		env   map[string]string
		ipv6  bool
		want  string
	}{
		{
			about: "what App Mesh's ECS integration sets up",
			env:   map[string]string{EnvIgnoreUID: "1337", EnvAppPorts: "8080, 9080"},
			want: `
-A APPMESH_INGRESS -p tcp -m multiport --dports 8080,9080 -j REDIRECT --to-ports 15000
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 22 -j RETURN
-A APPMESH_EGRESS -p tcp -d 169.254.169.254/32 -j RETURN
-A APPMESH_EGRESS -p tcp -d 169.254.170.2/32 -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 15001`,
		},
		{
			about: "no application ports: egress only; owner, group, ports and networks left alone",
			env: map[string]string{EnvIgnoreUID: "1337", EnvIgnoreGID: "1338", EnvEgressPort: "16001",
				EnvEgressIgnoredPorts: "2049", EnvEgressIgnoredIP: "10.0.0.0/8,fd00::1"},
			want: `
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -m owner --gid-owner 1338 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 2049,22 -j RETURN
-A APPMESH_EGRESS -p tcp -d 10.0.0.0/8 -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 16001`,
		},
		{
			about: "the twin for IPv6 takes the addresses of its family",
			env:   map[string]string{EnvIgnoreUID: "1337", EnvEgressIgnoredIP: "10.0.0.0/8,fd00::1", EnvEnableIPv6: "1"},
			ipv6:  true,
			want: `
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 22 -j RETURN
-A APPMESH_EGRESS -p tcp -d fd00::1/128 -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 15001`,
		},
		{
			about: "the sixteenth port is not lost",
			env:   map[string]string{EnvIgnoreUID: "1337", EnvAppPorts: "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", EnvEgressIgnoredIP: ""},
			want: `
-A APPMESH_INGRESS -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 -j REDIRECT --to-ports 15000
-A APPMESH_INGRESS -p tcp -m multiport --dports 16 -j REDIRECT --to-ports 15000
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 22 -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 15001`,
		},
	} {
		config, err := Parse(variables(test.env))
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		if diff := cmp.Diff(strings.TrimPrefix(test.want, "\n"), strings.Join(config.rules(test.ipv6), "\n")); diff != "" {
			t.Errorf("%s:\n%s", test.about, diff)
		}
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{}, "APPMESH_IGNORE_UID or APPMESH_IGNORE_GID is required: without one of them Envoy's own traffic would come back to Envoy for ever"},
		{map[string]string{EnvIgnoreUID: "envoy"}, `APPMESH_IGNORE_UID: "envoy" is not a numeric id`},
		{map[string]string{EnvIgnoreUID: "1", EnvAppPorts: "80,http"}, `APPMESH_APP_PORTS: "http" is not a port`},
		{map[string]string{EnvIgnoreUID: "1", EnvEgressPort: "70000"}, `APPMESH_ENVOY_EGRESS_PORT: "70000" is not a port`},
		{map[string]string{EnvIgnoreUID: "1", EnvIngressPort: "", EnvAppPorts: "80"}, "APPMESH_ENVOY_INGRESS_PORT is required with APPMESH_APP_PORTS"},
		{map[string]string{EnvIgnoreUID: "1", EnvEgressIgnoredIP: "10.0.0.0/8,db.local"}, `APPMESH_EGRESS_IGNORED_IP: "db.local" is neither an IP address nor a CIDR`},
		{map[string]string{EnvIgnoreUID: "1", EnvEnableIPv6: "yes"}, `APPMESH_ENABLE_IPV6: "yes" is not true or false`},
	} {
		_, err := Parse(variables(test.env))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %s", test.env, err, test.want)
		}
	}
}
