package envoy

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestShapeOf(t *testing.T) {
	tests := []struct {
		name     string
		metadata map[string]any
		want     Shape
		err      string // part of it
	}{
		{"an App Mesh Envoy says nothing", map[string]any{"aws.appmesh.platformInfo": map[string]any{"AvailabilityZone": "a"}}, Shape{}, ""},
		{"interception with an agent", map[string]any{"fairlead.agent": "1.0"}, Shape{Agent: true}, ""},
		{
			"direct mode, lists in any order",
			map[string]any{
				"fairlead.agent": "1.0", "fairlead.bind_address": "127.0.0.2", "fairlead.app_address": "127.0.0.9",
				"fairlead.app_ports": "9000=2, 8080=1", "fairlead.tcp_egress": "redis.local:6379=16379,db.local:5432=15432",
			},
			Shape{Agent: true, Bind: "127.0.0.2", AppAddress: "127.0.0.9", AppPorts: "8080=1,9000=2", TCPEgress: "db.local:5432=15432,redis.local:6379=16379"}, "",
		},
		{"IPv6", map[string]any{"fairlead.bind_address": "0:0::1"}, Shape{Bind: "::1"}, ""},
		{"a name is no address", map[string]any{"fairlead.bind_address": "localhost"}, Shape{}, `read fairlead.bind_address: "localhost" is not an IP address`},
		{"no port", map[string]any{"fairlead.app_ports": "8080"}, Shape{}, `"8080" is not name=port`},
		{"a port too high", map[string]any{"fairlead.app_ports": "8080=65536"}, Shape{}, `"65536" is not a port`},
		{"twice", map[string]any{"fairlead.app_ports": "8080=1,8080=2"}, Shape{}, `"8080" is given twice`},
		{"a service without a port", map[string]any{"fairlead.tcp_egress": "db=15432"}, Shape{}, `"db" is not service:port`},
		{"two services on one local port", map[string]any{"fairlead.tcp_egress": "a:1=9,b:1=9"}, Shape{}, "local port 9 is taken twice"},
		{"the port of HTTP", map[string]any{"fairlead.tcp_egress": "a:1=15001"}, Shape{}, "local port 15001 is taken twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			metadata, err := structpb.NewStruct(tt.metadata)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ShapeOf(&corev3.Node{Metadata: metadata})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("ShapeOf() = %+v, %v, want %+v", got, err, tt.want)
			}
			again := map[string]any{}
			for key, value := range got.Metadata() {
				again[key] = value
			}
			if got.Agent {
				again[MetadataAgent] = "1.0"
			}
			metadata, err = structpb.NewStruct(again)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ShapeOf(&corev3.Node{Metadata: metadata}); err != nil || got != tt.want {
				t.Errorf("of its own metadata: %+v, %v", got, err)
			}
		})
	}
	if got, err := ShapeOf(nil); err != nil || got != (Shape{}) {
		t.Errorf("of no node: %+v, %v", got, err)
	}
}

func TestFileSecretNames(t *testing.T) {
	certificate := FileSecret{Chain: "/keys/a b&c.pem", Key: "/keys/ü.key"}
	if got, err := ParseFileSecret(FileCertificateName(certificate.Chain, certificate.Key)); err != nil || got != certificate {
		t.Errorf("certificate: %+v, %v", got, err)
	}
	trust := FileSecret{Chain: "/keys/ca.pem"}
	if got, err := ParseFileSecret(FileTrustName(trust.Chain)); err != nil || got != trust {
		t.Errorf("trust: %+v, %v", got, err)
	}
	for _, name := range []string{
		"", "spiffe://m/a", "file-certificate:", "file-certificate:chain=%2Fa", "file-trust:", "file-trust:chain=%2Fa&key=%2Fb", "file-trust:chain=%zz",
	} {
		if got, err := ParseFileSecret(name); err == nil {
			t.Errorf("ParseFileSecret(%q) = %+v", name, got)
		}
	}
}
