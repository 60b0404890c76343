package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/discovery"
)

const (
	meshName     = "demo"
	colorService = "color.demo.local"
	redService   = "red.demo.local"
)

// endpoint is a mesh endpoint of the demo.
type endpoint struct {
	name, kind string // kind as in its ARN
	host       byte
	mutual     bool // asks its clients for a certificate
	stranger   bool // has a certificate of the authority that the gateway does not trust
}

var nodes = []endpoint{
	{name: "blue", kind: "virtualNode", host: blueHost},
	{name: "green", kind: "virtualNode", host: greenHost, mutual: true},
	{name: "red", kind: "virtualNode", host: redHost, stranger: true},
}

var gateway = endpoint{name: "gateway", kind: "virtualGateway", host: gatewayHost}

func (e endpoint) resource() string { return "mesh/" + meshName + "/" + e.kind + "/" + e.name }
func (e endpoint) hostname() string { return e.name + ".demo.local" }

func (d *Demo) chain(name string) string { return filepath.Join(d.dir, "certificates", name+".pem") }
func (d *Demo) key(name string) string   { return filepath.Join(d.dir, "certificates", name+".key") }

// makeCertificates writes two authorities and a certificate for each endpoint.
func (d *Demo) makeCertificates() error {
	if err := os.MkdirAll(filepath.Join(d.dir, "certificates"), 0o700); err != nil {
		return fmt.Errorf("make the folder for certificates: %w", err)
	}
	now := time.Now()
	trusted, err := ca.NewRoot("Demo CA", now, 24*time.Hour)
	if err != nil {
		return err
	}
	stranger, err := ca.NewRoot("A CA that nobody trusts", now, 24*time.Hour)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.chain("ca"), trusted.PEM(), 0o600); err != nil {
		return fmt.Errorf("write the CA's certificate: %w", err)
	}
	for _, e := range append([]endpoint{gateway}, nodes...) {
		issuer := trusted
		if e.stranger {
			issuer = stranger
		}
		leaf, err := issuer.Issue(ca.Names{DNS: []string{e.hostname()}}, now, 12*time.Hour)
		if err != nil {
			return err
		}
		for path, content := range map[string][]byte{d.chain(e.name): leaf.Chain, d.key(e.name): leaf.Key} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return fmt.Errorf("write the certificate of %s: %w", e.name, err)
			}
		}
	}
	return nil
}

func (d *Demo) makeMesh(ctx context.Context) error {
	if err := d.makeCertificates(); err != nil {
		return err
	}
	names := map[string]string{}
	for _, e := range nodes {
		names[e.hostname()] = d.network.ip(e.host)
	}
	var err error
	if d.dns, err = discovery.Start("127.0.0.1:0", names); err != nil {
		return err
	}
	client, mesh := d.server.appmesh, aws.String(meshName)
	if _, err := client.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: mesh}); err != nil {
		return err
	}
	d.say("   mesh %s", meshName)
	for _, e := range nodes {
		if _, err := client.CreateVirtualNode(ctx, &appmesh.CreateVirtualNodeInput{MeshName: mesh, VirtualNodeName: &e.name, Spec: d.nodeSpec(e)}); err != nil {
			return err
		}
		note := "TLS STRICT, its certificate from a file"
		if e.mutual {
			note += ", asks clients for one too"
		}
		if e.stranger {
			note += ", issued by a CA that the gateway does not trust"
		}
		d.say("   virtual node %s: %s", e.name, note)
	}
	if err := d.makeServices(ctx, client, mesh); err != nil {
		return err
	}
	return d.makeGateway(ctx, client, mesh)
}

func (d *Demo) nodeSpec(e endpoint) *types.VirtualNodeSpec {
	tls := &types.ListenerTls{Mode: types.ListenerTlsModeStrict, Certificate: &types.ListenerTlsCertificateMemberFile{
		Value: types.ListenerTlsFileCertificate{CertificateChain: aws.String(d.chain(e.name)), PrivateKey: aws.String(d.key(e.name))}}}
	if e.mutual {
		tls.Validation = &types.ListenerTlsValidationContext{Trust: &types.ListenerTlsValidationContextTrustMemberFile{
			Value: types.TlsValidationContextFileTrust{CertificateChain: aws.String(d.chain("ca"))}}}
	}
	return &types.VirtualNodeSpec{
		ServiceDiscovery: &types.ServiceDiscoveryMemberDns{Value: types.DnsServiceDiscovery{Hostname: aws.String(e.hostname())}},
		Listeners: []types.Listener{{
			PortMapping: &types.PortMapping{Port: aws.Int32(listenerPort), Protocol: types.PortProtocolHttp}, Tls: tls}},
	}
}

func (d *Demo) makeServices(ctx context.Context, client *appmesh.Client, mesh *string) error {
	router := aws.String("color")
	if _, err := client.CreateVirtualRouter(ctx, &appmesh.CreateVirtualRouterInput{MeshName: mesh, VirtualRouterName: router,
		Spec: &types.VirtualRouterSpec{Listeners: []types.VirtualRouterListener{{
			PortMapping: &types.PortMapping{Port: aws.Int32(listenerPort), Protocol: types.PortProtocolHttp}}}}}); err != nil {
		return err
	}
	if _, err := client.CreateRoute(ctx, &appmesh.CreateRouteInput{MeshName: mesh, VirtualRouterName: router, RouteName: aws.String("weighted"),
		Spec: &types.RouteSpec{HttpRoute: &types.HttpRoute{
			Match: &types.HttpRouteMatch{Prefix: aws.String("/")},
			Action: &types.HttpRouteAction{WeightedTargets: []types.WeightedTarget{
				{VirtualNode: aws.String("blue"), Weight: 60}, {VirtualNode: aws.String("green"), Weight: 40}}}}}}); err != nil {
		return err
	}
	for name, provider := range map[string]types.VirtualServiceProvider{
		colorService: &types.VirtualServiceProviderMemberVirtualRouter{Value: types.VirtualRouterServiceProvider{VirtualRouterName: router}},
		redService:   &types.VirtualServiceProviderMemberVirtualNode{Value: types.VirtualNodeServiceProvider{VirtualNodeName: aws.String("red")}},
	} {
		if _, err := client.CreateVirtualService(ctx, &appmesh.CreateVirtualServiceInput{MeshName: mesh, VirtualServiceName: &name,
			Spec: &types.VirtualServiceSpec{Provider: provider}}); err != nil {
			return err
		}
	}
	d.say("   virtual service %s: a route that sends 60%% to blue, 40%% to green\n   virtual service %s: red", colorService, redService)
	return nil
}

// makeGateway gives the gateway a certificate of its own and one trusted CA
// for all that it calls, and a route to each service.
func (d *Demo) makeGateway(ctx context.Context, client *appmesh.Client, mesh *string) error {
	policy := &types.VirtualGatewayClientPolicyTls{
		Certificate: &types.VirtualGatewayClientTlsCertificateMemberFile{Value: types.VirtualGatewayListenerTlsFileCertificate{
			CertificateChain: aws.String(d.chain(gateway.name)), PrivateKey: aws.String(d.key(gateway.name))}},
		Validation: &types.VirtualGatewayTlsValidationContext{Trust: &types.VirtualGatewayTlsValidationContextTrustMemberFile{
			Value: types.VirtualGatewayTlsValidationContextFileTrust{CertificateChain: aws.String(d.chain("ca"))}}},
	}
	if _, err := client.CreateVirtualGateway(ctx, &appmesh.CreateVirtualGatewayInput{MeshName: mesh, VirtualGatewayName: aws.String(gateway.name),
		Spec: &types.VirtualGatewaySpec{
			BackendDefaults: &types.VirtualGatewayBackendDefaults{ClientPolicy: &types.VirtualGatewayClientPolicy{Tls: policy}},
			Listeners: []types.VirtualGatewayListener{{PortMapping: &types.VirtualGatewayPortMapping{
				Port: aws.Int32(listenerPort), Protocol: types.VirtualGatewayPortProtocolHttp}}}}}); err != nil {
		return err
	}
	for prefix, service := range map[string]string{"/color": colorService, "/red": redService} {
		if _, err := client.CreateGatewayRoute(ctx, &appmesh.CreateGatewayRouteInput{MeshName: mesh,
			VirtualGatewayName: aws.String(gateway.name), GatewayRouteName: aws.String(prefix[1:]),
			Spec: &types.GatewayRouteSpec{HttpRoute: &types.HttpGatewayRoute{
				Match:  &types.HttpGatewayRouteMatch{Prefix: &prefix},
				Action: &types.HttpGatewayRouteAction{Target: &types.GatewayRouteTarget{VirtualService: &types.GatewayRouteVirtualService{VirtualServiceName: &service}}}}}}); err != nil {
			return err
		}
	}
	d.say("   virtual gateway %s: enforces TLS with the demo's CA, has a certificate itself; /color and /red", gateway.name)
	return nil
}
