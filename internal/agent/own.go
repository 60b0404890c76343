package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/xds"
)

const (
	// issueTimeout bounds one request for a certificate.
	issueTimeout = 10 * time.Second
	// issuePause is the first pause after a request that failed; it doubles up to
	// issueMaxPause.
	issuePause, issueMaxPause = 250 * time.Millisecond, 30 * time.Second
)

// ownSecrets gets the certificates of Fairlead's own SDS that the configuration
// names: it makes their keys, which never leave the memory of this process and
// its Envoy, has the server sign for them, and renews them at half their life.
type ownSecrets struct {
	resource string
	secrets  *fileSecrets
	issue    func(ctx context.Context, r xds.IssueRequest) (xds.Issued, error)
	log      *slog.Logger
	now      func() time.Time
	// connected has a token when the server was reached anew.
	connected chan struct{}
}

// errand is when a certificate is asked for next.
type errand struct {
	at       time.Time
	failures int
}

// run serves until the context ends.
func (o *ownSecrets) run(ctx context.Context) {
	wake := make(chan struct{}, 1)
	defer o.secrets.subscribe(wake)()
	errands := map[string]*errand{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.connected:
			for _, e := range errands {
				if e.failures > 0 {
					*e = errand{}
				}
			}
		case <-wake:
		case <-timer.C:
		}
		timer.Reset(o.work(ctx, errands))
	}
}

// work asks for what is due, and returns when something will be.
func (o *ownSecrets) work(ctx context.Context, errands map[string]*errand) (pause time.Duration) {
	names := o.secrets.own()
	for name := range errands {
		if !names[name] {
			delete(errands, name)
		}
	}
	pause = time.Hour
	for name := range names {
		e := errands[name]
		if e == nil {
			e = &errand{}
			errands[name] = e
		}
		if !o.now().Before(e.at) {
			o.attempt(ctx, name, e)
		}
		pause = min(pause, max(0, e.at.Sub(o.now())))
	}
	return pause
}

// attempt asks for one certificate.
func (o *ownSecrets) attempt(ctx context.Context, name string, e *errand) {
	issued, key, err := o.ask(ctx, name)
	if err == nil {
		err = o.secrets.put(name, issued.Chain, key)
	}
	if err != nil {
		wait := min(issuePause<<min(e.failures, 10), issueMaxPause)
		e.failures++
		e.at = o.now().Add(wait/2 + mathrand.N(wait/2))
		if ctx.Err() == nil && o.secrets.lacks(name, "the server has not issued it: "+explainIssue(err)) {
			o.log.Warn("the server issues no certificate; the one before is served as long as it is valid", "secret", name, "why", explainIssue(err))
		}
		return
	}
	// At half its life, and not all proxies at once.
	life := time.Duration(issued.Life * float64(time.Second))
	*e = errand{at: o.now().Add(life/2 - mathrand.N(life/10+1))}
	o.log.Info("a certificate was issued to this proxy", "secret", name, "life", life)
}

// ask makes a key and has it certified. The key is PEM.
func (o *ownSecrets) ask(ctx context.Context, name string) (issued xds.Issued, key []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued, nil, fmt.Errorf("make key: %w", err)
	}
	// The names are for the server to decide: the request has none.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return issued, nil, fmt.Errorf("make CSR: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return issued, nil, fmt.Errorf("encode key: %w", err)
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	issued, err = o.issue(ctx, xds.IssueRequest{Resource: o.resource, Secret: name,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))})
	if err != nil {
		return issued, nil, err
	}
	if _, err := tls.X509KeyPair([]byte(issued.Chain), key); err != nil || issued.Life <= 0 {
		return issued, nil, errors.Join(errors.New("the server's answer is no certificate for this proxy's key"), err)
	}
	return issued, key, nil
}

func explainIssue(err error) string {
	if refusal, ok := status.FromError(err); ok {
		return refusal.Message()
	}
	return err.Error()
}

// errNotConnected is why nothing can be asked for.
var errNotConnected = errors.New("the server is not reached")

// issuer calls the server over the connection that the agent's stream has.
type issuer struct {
	conn atomic.Pointer[grpc.ClientConn]
}

func (i *issuer) call(ctx context.Context, r xds.IssueRequest) (issued xds.Issued, err error) {
	conn := i.conn.Load()
	if conn == nil {
		return issued, errNotConnected
	}
	text, err := json.Marshal(r)
	if err != nil {
		return issued, fmt.Errorf("write request for a certificate: %w", err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, awsapi.IssueCertificate)
	if err != nil {
		return issued, err
	}
	var answer wrapperspb.BytesValue
	if err := stream.SendMsg(wrapperspb.Bytes(text)); err != nil && !errors.Is(err, io.EOF) {
		return issued, err
	} // of a request that was not taken RecvMsg says why
	if err := stream.CloseSend(); err != nil {
		return issued, err
	}
	if err := stream.RecvMsg(&answer); err != nil {
		return issued, err
	}
	if err := json.Unmarshal(answer.GetValue(), &issued); err != nil {
		return issued, fmt.Errorf("read the server's answer: %w", err)
	}
	return issued, nil
}
