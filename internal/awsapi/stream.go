package awsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// StreamService is the signing name of an ADS stream.
const StreamService = "appmesh"

// The gRPC methods that the stream profile is for.
const (
	StreamAggregatedResources = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	DeltaAggregatedResources  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	// IssueCertificate is what agents call beside their stream.
	IssueCertificate = "/fairlead.v1.OwnSDS/IssueCertificate"
)

// StreamScope is what a stream's signature is for.
type StreamScope struct {
	Method    string // full gRPC method: StreamAggregatedResources or DeltaAggregatedResources
	Authority string // the :authority that the client sends: host:port
	Region    string
}

// SignStream returns the metadata that open an ADS stream at time now, with
// aws-sdk-go-v2's signer. The stream must be over TLS.
func SignStream(ctx context.Context, creds aws.Credentials, scope StreamScope, now time.Time) (map[string]string, error) {
	r := &http.Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "https", Host: scope.Authority, Path: scope.Method},
		Host:   scope.Authority,
		Header: http.Header{"X-Amz-Content-Sha256": {emptyHash}},
	}
	if err := v4.NewSigner().SignHTTP(ctx, creds, r, emptyHash, StreamService, scope.Region, now); err != nil {
		return nil, fmt.Errorf("sign stream: %w", err)
	}
	md := map[string]string{}
	for name, values := range r.Header {
		md[strings.ToLower(name)] = values[0]
	}
	return md, nil
}

// StreamSigner signs every stream of a gRPC connection:
// grpc.WithPerRPCCredentials(StreamSigner{…}). It refuses to work without TLS.
type StreamSigner struct {
	Credentials aws.CredentialsProvider
	Region      string
	Now         func() time.Time // nil: time.Now
}

// GetRequestMetadata signs for the method that is being called.
func (s StreamSigner) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	info, ok := credentials.RequestInfoFromContext(ctx)
	if !ok || len(uri) == 0 {
		return nil, errors.New("sign stream: no gRPC method in the context")
	}
	target, err := url.Parse(uri[0])
	if err != nil {
		return nil, fmt.Errorf("sign stream: %w", err)
	}
	creds, err := s.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("get credentials to sign the stream: %w", err)
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return SignStream(ctx, creds, StreamScope{Method: info.Method, Authority: target.Host, Region: s.Region}, now())
}

// RequireTransportSecurity is true: a signature can be replayed for minutes.
func (StreamSigner) RequireTransportSecurity() bool { return true }

// VerifyStream says who opens an ADS stream, from the context of its gRPC
// handler. The profile (design.md 3) is the one of the App Mesh Envoy image:
// only the two ADS methods and IssueCertificate, over TLS, signed as a POST of nothing; host,
// x-amz-date and any x-amz header signed. A Refusal with
// iam.ErrUnauthenticated is gRPC status 16; any other error means that keys
// cannot be looked up now (14).
func VerifyStream(ctx context.Context, cfg Config, fullMethod string) (iam.Principal, error) {
	if fullMethod != StreamAggregatedResources && fullMethod != DeltaAggregatedResources && fullMethod != IssueCertificate {
		return iam.Principal{}, iam.Refuse(iam.ErrUnauthenticated, "%s takes no signature: only aggregated discovery streams and requests for certificates do", fullMethod)
	}
	p, _ := peer.FromContext(ctx)
	if p == nil || p.AuthInfo == nil || p.AuthInfo.AuthType() != "tls" {
		return iam.Principal{}, iam.Refuse(iam.ErrUnauthenticated, "a signed stream must be over TLS")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	authority := md.Get(":authority")
	if len(authority) != 1 {
		return iam.Principal{}, iam.Refuse(iam.ErrUnauthenticated, "a stream has one :authority")
	}
	return verifyStreamHeaders(ctx, cfg, streamRequest{method: fullMethod, authority: authority[0], header: md})
}

// emptyHash is the SHA-256 of nothing.
var emptyHash = hashOf(nil)

const unsignedPayload = "UNSIGNED-PAYLOAD"

type streamRequest struct {
	method    string
	authority string
	header    metadata.MD // lower-case names
}

func verifyStreamHeaders(ctx context.Context, cfg Config, r streamRequest) (iam.Principal, error) {
	principal, err := authenticateStream(ctx, cfg, r)
	if exception, ok := errors.AsType[*api.Exception](err); ok {
		return iam.Principal{}, iam.Refuse(iam.ErrUnauthenticated, "%s", exception.Message)
	}
	return principal, err
}

func authenticateStream(ctx context.Context, cfg Config, r streamRequest) (iam.Principal, error) {
	authorization := r.header.Get("authorization")
	if len(authorization) == 0 {
		return iam.Principal{}, refuse(codeMissingToken, "Missing Authentication Token")
	}
	date := r.header.Get("x-amz-date")
	if len(authorization) > 1 || len(date) != 1 {
		return iam.Principal{}, refuse(codeIncomplete, "a stream has one Authorization and one X-Amz-Date header")
	}
	s, err := parseAuthorization(authorization[0])
	if err != nil {
		return iam.Principal{}, err
	}
	if s.service != StreamService {
		return iam.Principal{}, wrongService(StreamService)
	}
	if err := s.parseTime(date[0]); err != nil {
		return iam.Principal{}, err
	}
	mustSign := []string{"host"}
	for name := range r.header {
		if strings.HasPrefix(name, "x-amz-") {
			mustSign = append(mustSign, name)
		}
	}
	if err := s.checkSigned(mustSign); err != nil {
		return iam.Principal{}, err
	}
	if err := s.setToken(r.header.Get("x-amz-security-token")); err != nil {
		return iam.Principal{}, err
	}
	payload := emptyHash
	if sent := r.header.Get("x-amz-content-sha256"); len(sent) > 0 {
		if len(sent) > 1 || sent[0] != emptyHash && sent[0] != unsignedPayload {
			return iam.Principal{}, refuse(codeBadSignature, "The x-amz-content-sha256 header of a stream is the SHA-256 of nothing or %s.", unsignedPayload)
		}
		payload = sent[0]
	}
	// gRPC's C core signs for the authority without the default port but sends
	// it with the port, so a signature may be for either.
	forms := []signedForm{r.form(r.authority, payload)}
	if host, ok := strings.CutSuffix(r.authority, ":443"); ok {
		forms = append(forms, r.form(host, payload))
	}
	return authenticate(ctx, cfg, s, forms...)
}

func (r streamRequest) form(host, payload string) signedForm {
	return signedForm{method: http.MethodPost, path: r.method, payloadHash: payload, header: func(name string) []string {
		switch name {
		case "host":
			return []string{host}
		case "te": // gRPC keeps these two for itself; a stream has no others
			return []string{"trailers"}
		case "content-type":
			return []string{"application/grpc"}
		}
		return r.header.Get(name)
	}}
}
