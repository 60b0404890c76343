package pki

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// onAWS starts a server whose ARNs are of the AWS at an endpoint. AWS_ENDPOINT_URL
// is not for it: there is nothing there.
func onAWS(t *testing.T, endpoint string, env ...string) *meshtest.Server {
	t.Helper()
	return meshtest.StartServer(t, meshtest.ServerOptions{Debug: true, Args: []string{"--acm", "aws"}, Env: append([]string{
		"AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ENDPOINT_URL_ACM=" + endpoint, "AWS_ENDPOINT_URL_ACM_PCA=" + endpoint,
		"AWS_CONFIG_FILE=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
	}, env...)})
}

func trustSpec(root string) *types.VirtualNodeSpec {
	return &types.VirtualNodeSpec{BackendDefaults: &types.BackendDefaults{ClientPolicy: &types.ClientPolicy{Tls: &types.ClientPolicyTls{
		Validation: &types.TlsValidationContext{Trust: &types.TlsValidationContextTrustMemberAcm{Value: types.TlsValidationContextAcmTrust{CertificateAuthorityArns: []string{root}}}},
	}}}}
}

func servingSpec(certificate string) *types.VirtualNodeSpec {
	return &types.VirtualNodeSpec{
		ServiceDiscovery: &types.ServiceDiscoveryMemberDns{Value: types.DnsServiceDiscovery{Hostname: aws.String("api.apps.local")}},
		Listeners: []types.Listener{{
			PortMapping: &types.PortMapping{Port: aws.Int32(8080), Protocol: types.PortProtocolHttp},
			Tls: &types.ListenerTls{Mode: types.ListenerTlsModeStrict, Certificate: &types.ListenerTlsCertificateMemberAcm{
				Value: types.ListenerTlsAcmCertificate{CertificateArn: &certificate}}},
		}},
	}
}

func createNode(t *testing.T, s *meshtest.Server, name string, spec *types.VirtualNodeSpec) error {
	t.Helper()
	_, err := s.Client(t).CreateVirtualNode(t.Context(), &appmesh.CreateVirtualNodeInput{MeshName: aws.String("apps"), VirtualNodeName: &name, Spec: spec})
	return err
}

func makeMesh(t *testing.T, s *meshtest.Server) {
	t.Helper()
	must[*appmesh.CreateMeshOutput](t)(s.Client(t).CreateMesh(t.Context(), &appmesh.CreateMeshInput{MeshName: aws.String("apps")}))
}

// TestMotoAsAWS: a spec names roots of a Private CA that is not ours. What it has
// not is refused with what it says; ACM's own API is elsewhere.
func TestMotoAsAWS(t *testing.T) {
	endpoint := meshtest.StartMoto(t)
	s := onAWS(t, endpoint, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret")
	moto := aws.Config{Region: meshtest.Region, BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
	root := *authority(t, acmpca.NewFromConfig(moto))
	makeMesh(t, s)
	if err := createNode(t, s, "web", trustSpec(root)); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		spec *types.VirtualNodeSpec
		want string
	}{
		{trustSpec(strings.Replace(root, "authority/", "authority/0", 1)), "cannot be had from AWS: AWS says ResourceNotFoundException: "},
		{servingSpec("arn:aws:acm:us-east-1:" + meshtest.Account + ":certificate/absent"), "cannot be had from AWS: AWS says ResourceNotFoundException: "},
		{servingSpec("arn:aws:acm:us-east-1:123456789012:certificate/other"), "is of account 123456789012: a listener's certificate must be of the account"},
	} {
		if err := createNode(t, s, "bad", x.spec); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v, want %q", err, x.want)
		}
	}
	_, err := acmClient(t, s).ListCertificates(t.Context(), &acm.ListCertificatesInput{})
	if err == nil || !strings.Contains(err.Error(), "this server runs with --acm aws") {
		t.Errorf("ListCertificates: %v", err)
	}
	_, err = client(t, s, speakCBOR).ListCertificateAuthorities(t.Context(), &acmpca.ListCertificateAuthoritiesInput{})
	if err == nil || !strings.Contains(err.Error(), "this server runs with --acm aws") {
		t.Errorf("ListCertificateAuthorities: %v", err)
	}
}

// TestFairleadAsAWS: a private certificate of another server's ACM is accepted in a
// spec, and what an operator sees of it is there; its key is in no log or file.
func TestFairleadAsAWS(t *testing.T) {
	upstream := meshtest.StartServer(t, meshtest.ServerOptions{})
	root := authorityForACM(t, upstream)
	c := acmClient(t, upstream)
	arn := *must[*acm.RequestCertificateOutput](t)(c.RequestCertificate(t.Context(), &acm.RequestCertificateInput{
		DomainName: aws.String("api.apps.local"), CertificateAuthorityArn: &root, KeyAlgorithm: acmtypes.KeyAlgorithmEcPrime256v1})).CertificateArn
	waitIssued(t, c, arn, time.Minute)

	s := onAWS(t, upstream.API, "AWS_SHARED_CREDENTIALS_FILE="+upstream.Credentials())
	makeMesh(t, s)
	if err := createNode(t, s, "api", servingSpec(arn)); err != nil {
		t.Fatal(err)
	}
	if err := createNode(t, s, "web", trustSpec(root)); err != nil {
		t.Fatal(err)
	}
	text, err := s.Get(t.Context(), "/metrics")
	if err != nil || !strings.Contains(text, `fairlead_aws_calls_total{operation="ExportCertificate",result="ok"} 1`) || !strings.Contains(text, "fairlead_aws_failing 0") {
		t.Errorf("%v; the metrics lack what AWS was asked", err)
	}
	out := must[*acm.ExportCertificateOutput](t)(c.ExportCertificate(t.Context(), &acm.ExportCertificateInput{CertificateArn: &arn, Passphrase: []byte("correct horse")}))
	if log := s.Log(); strings.Contains(log, "PRIVATE KEY") || !strings.Contains(log, "fetched from AWS") || out.PrivateKey == nil {
		t.Errorf("the log:\n%s", log)
	}

	// Renewed there, it is served here by an event.
	must[*acm.RenewCertificateOutput](t)(c.RenewCertificate(t.Context(), &acm.RenewCertificateInput{CertificateArn: &arn}))
	meshtest.Eventually(t, time.Minute, func(ctx context.Context) error {
		d, err := c.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})
		if err == nil && (d.Certificate.RenewalSummary == nil || d.Certificate.RenewalSummary.RenewalStatus != acmtypes.RenewalStatusSuccess) {
			err = errors.New("it is not renewed")
		}
		return err
	})
	event := must[[]byte](t)(json.Marshal(map[string]any{
		"version": "0", "id": "1", "detail-type": "ACM Certificate Available", "source": "aws.acm", "account": meshtest.Account,
		"time": "2026-11-25T12:00:00Z", "region": meshtest.Region, "resources": []string{arn}, "detail": map[string]string{"Action": "RENEWAL"},
	}))
	answer, err := command(t, s, files(t, map[string]string{"event.json": string(event)}), meshtest.Binary(t), "acm", "event", "event.json")
	if err != nil || !strings.Contains(answer, arn) {
		t.Fatalf("%v %s", err, answer)
	}
	meshtest.Eventually(t, time.Minute, func(ctx context.Context) error {
		text, err := s.Get(ctx, "/metrics")
		if err == nil && !strings.Contains(text, `fairlead_aws_calls_total{operation="ExportCertificate",result="ok"} 2`) {
			err = errors.New("it was not exported again")
		}
		return err
	})
	list, err := command(t, s, t.TempDir(), meshtest.Binary(t), "acm", "fetched")
	if err != nil || !strings.Contains(list, arn) || !strings.Contains(list, root) {
		t.Errorf("%v %s", err, list)
	}
}
