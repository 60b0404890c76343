package awsapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	transport "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/iam"
)

// streamServer verifies every stream and answers with a status that says who
// opened it. It returns its address and what clients trust.
func streamServer(t *testing.T, cfg Config, options ...grpc.ServerOption) string {
	t.Helper()
	cfg.Keys, cfg.Region = testKeys{}, testRegion
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		principal, err := VerifyStream(stream.Context(), cfg, method)
		switch {
		case errors.Is(err, iam.ErrUnauthenticated):
			return status.Error(codes.Unauthenticated, err.Error())
		case err != nil:
			return status.Error(codes.Unavailable, err.Error())
		}
		return status.Error(codes.Aborted, principal.ARN())
	}))...)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"fairlead.example", "other.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// open opens a stream and returns how the server ended it.
func open(t *testing.T, ctx context.Context, method, address string, options ...grpc.DialOption) *status.Status {
	t.Helper()
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err == nil {
		err = stream.RecvMsg(nil)
	}
	return status.Convert(err)
}

// TestStreamSigner: a real gRPC client and server over TLS, both methods.
func TestStreamSigner(t *testing.T) {
	certificate, pool := selfSigned(t)
	address := streamServer(t, Config{}, grpc.Creds(transport.NewServerTLSFromCert(&certificate)))
	for _, method := range []string{StreamAggregatedResources, DeltaAggregatedResources} {
		s := open(t, t.Context(), method, address, grpc.WithTransportCredentials(transport.NewClientTLSFromCert(pool, "")),
			grpc.WithPerRPCCredentials(StreamSigner{Credentials: credentials.StaticCredentialsProvider{Value: proxyCreds}, Region: testRegion}))
		if want := "arn:aws:iam::000000000000:user/proxy/mesh/m/virtualNode/n"; s.Code() != codes.Aborted || s.Message() != want {
			t.Errorf("%s: %v", method, s)
		}
	}
}

// TestStreamNeedsTLS: a good signature over plain text is refused, and the
// signer does not hand one out.
func TestStreamNeedsTLS(t *testing.T) {
	address := streamServer(t, Config{})
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	md, err := SignStream(t.Context(), proxyCreds, StreamScope{StreamAggregatedResources, address, testRegion}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, metadata.NewOutgoingContext(t.Context(), metadata.New(md)), StreamAggregatedResources, address, plain)
	if s.Code() != codes.Unauthenticated || s.Message() != "a signed stream must be over TLS" {
		t.Errorf("a signed stream over plain text: %v", s)
	}
	if _, err := grpc.NewClient(address, plain, grpc.WithPerRPCCredentials(StreamSigner{})); err == nil {
		t.Error("gRPC lets the signer work without TLS")
	}
}

// attempt is an opening of a stream, to be tampered with.
type attempt struct {
	scope     StreamScope // signed for
	creds     aws.Credentials
	at        time.Time
	method    string // called, if it is not the signed one
	authority string // sent, if it is not the usual one
	md        metadata.MD
}

// replace edits the Authorization metadata.
func (s *attempt) replace(old, with string) {
	s.md.Set("authorization", strings.Replace(s.md.Get("authorization")[0], old, with, 1))
}

func TestStreamProfile(t *testing.T) {
	const address = "fairlead.example:9481"
	certificate, pool := selfSigned(t)
	server := streamServer(t, Config{Now: func() time.Time { return signedAt }}, grpc.Creds(transport.NewServerTLSFromCert(&certificate)))
	const mismatch = messageMismatch
	for _, test := range []struct {
		name   string
		sign   func(*attempt)
		tamper func(*attempt)
		want   string // empty: accepted
	}{
		{"good", nil, nil, ""},
		{"state of the world", func(s *attempt) { s.scope.Method = StreamAggregatedResources }, nil, ""},
		{"gRPC core signs without the default port", func(s *attempt) { s.scope.Authority = "fairlead.example"; s.authority = "fairlead.example:443" }, nil, ""},
		{"root's signature is good too: who may what is another question", func(s *attempt) { s.creds = rootCreds }, nil, ""},
		{"other metadata may be unsigned", nil, func(s *attempt) { s.md.Set("grpc-previous-rpc-attempts", "1") }, ""},
		{"a session's is good too", func(s *attempt) { s.creds = sessionCreds }, nil, ""},
		{"the token of a session with another key", func(s *attempt) { s.creds.SessionToken = sessionCreds.SessionToken }, nil, messageInvalidToken},
		{"a session without its token", func(s *attempt) { s.creds = sessionCreds; s.creds.SessionToken = "" }, nil, messageInvalidToken},
		{"two tokens", func(s *attempt) { s.creds = sessionCreds }, func(s *attempt) { s.md.Append("x-amz-security-token", "x") }, "a request has one X-Amz-Security-Token header"},
		{"5 minutes old", func(s *attempt) { s.at = s.at.Add(-5 * time.Minute) }, nil, ""},

		{"no signature", nil, func(s *attempt) { s.md.Delete("authorization") }, "Missing Authentication Token"},
		{"two signatures", nil, func(s *attempt) { s.md.Append("authorization", "x") }, "a stream has one Authorization and one X-Amz-Date header"},
		{"no date", nil, func(s *attempt) { s.md.Delete("x-amz-date") }, "a stream has one Authorization and one X-Amz-Date header"},
		{"older", func(s *attempt) { s.at = s.at.Add(-301 * time.Second) }, nil, "Signature expired: 20261123T181333Z is now earlier than 20261123T181334Z (20261123T181834Z - 5 min.)"},
		{"from the future", func(s *attempt) { s.at = s.at.Add(301 * time.Second) }, nil, "Signature not yet current: 20261123T182335Z is still later than 20261123T182334Z (20261123T181834Z + 5 min.)"},
		{"wrong secret", func(s *attempt) { s.creds.SecretAccessKey = "x" }, nil, mismatch},
		{"unknown key", func(s *attempt) { s.creds.AccessKeyID = "FLNOBODY" }, nil, messageInvalidToken},
		{"session token", func(s *attempt) { s.creds.SessionToken = "x" }, nil, messageInvalidToken},
		{"token added unsigned", nil, func(s *attempt) { s.md.Set("x-amz-security-token", "x") }, "'x-amz-security-token' must be a 'SignedHeader' in the AWS Authorization."},
		{"another region", func(s *attempt) { s.scope.Region = "eu-west-1" }, nil, "Credential should be scoped to a valid region, not 'eu-west-1': this server's region is 'us-east-1'."},
		{"signed for the other method", func(s *attempt) { s.scope.Method = StreamAggregatedResources; s.method = DeltaAggregatedResources }, nil, mismatch},
		{"signed for another server", func(s *attempt) { s.authority = "other.example:9481" }, nil, mismatch},
		{"signed without a port that is not the default", func(s *attempt) { s.scope.Authority = "fairlead.example" }, nil, mismatch},
		{"another method", func(s *attempt) { s.method = "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes" }, nil, "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes takes no signature: only aggregated discovery streams and requests for certificates do"},
		{"payload hash of something", nil, func(s *attempt) { s.md.Set("x-amz-content-sha256", hashOf([]byte("x"))) }, "The x-amz-content-sha256 header of a stream is the SHA-256 of nothing or UNSIGNED-PAYLOAD."},
		{"payload hash exchanged", nil, func(s *attempt) { s.md.Set("x-amz-content-sha256", unsignedPayload) }, mismatch},
		{"payload hash dropped", nil, func(s *attempt) { s.md.Delete("x-amz-content-sha256") }, mismatch},
		{"host unsigned", nil, func(s *attempt) { s.replace("host;", "") }, "'host' must be a 'SignedHeader' in the AWS Authorization."},
		{"service fairlead", nil, func(s *attempt) { s.replace("/appmesh/", "/fairlead/") }, "Credential should be scoped to correct service: 'appmesh'."},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &attempt{scope: StreamScope{DeltaAggregatedResources, address, testRegion}, creds: proxyCreds, at: signedAt}
			if test.sign != nil {
				test.sign(s)
			}
			md, err := SignStream(t.Context(), s.creds, s.scope, s.at)
			if err != nil {
				t.Fatal(err)
			}
			s.md = metadata.New(md)
			if test.tamper != nil {
				test.tamper(s)
			}
			if s.method == "" {
				s.method = s.scope.Method
			}
			if s.authority == "" {
				s.authority = address
			}
			got := open(t, metadata.NewOutgoingContext(t.Context(), s.md), s.method, server,
				grpc.WithTransportCredentials(transport.NewClientTLSFromCert(pool, "")), grpc.WithAuthority(s.authority))
			if accepted := got.Code() == codes.Aborted; accepted != (test.want == "") || !accepted && (got.Code() != codes.Unauthenticated || got.Message() != test.want) {
				t.Errorf("got %v, want %q", got, test.want)
			}
		})
	}
}
