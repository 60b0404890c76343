package pki

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

// ACMConfig is what ACM needs.
type ACMConfig struct {
	Store *store.Store
	// Authorities issue what is requested: this server's own, or AWS's.
	Authorities acmpca.Service
	Region      string
	Account     string      // whose authorities are a reason to make keys ahead
	Metrics     *ACMMetrics // nil: nothing is counted
	Now         func() time.Time
	Log         *slog.Logger
}

// ACM implements acm.Service: certificates that are requested of a private
// authority, which Run issues and renews, and certificates that are imported.
type ACM struct {
	ACMConfig
	worker  string        // this process, in claims on tasks
	wake    chan struct{} // capacity 1: there is a task
	keys    *keyPool
	exports *semaphore.Weighted
	swept   time.Time // when due renewals were last looked for; only Run and tests
}

var _ acm.Service = (*ACM)(nil)

// maxExports bounds how many keys are encrypted at the same time: each costs a
// core some 20 ms.
const maxExports = 2

// NewACM is an ACM whose work is done by Run.
func NewACM(config ACMConfig) *ACM {
	return &ACM{
		ACMConfig: config, worker: uuid.NewString(), wake: make(chan struct{}, 1),
		keys: newKeyPool(), exports: semaphore.NewWeighted(maxExports),
	}
}

// The kinds of places in the store, each followed by account and id.
const (
	kindCertificate = "certificate"         // a certificate; its secret is its key, PKCS #8
	kindTask        = "certificate-task"    // what is to be issued for it; its secret is the new key
	kindToken       = "certificate-token"   // an idempotency token
	kindAccount     = "certificate-account" // what PutAccountConfiguration has set
)

// certificate is a certificate as it is stored. It is EXPIRED by the clock, not
// by a write.
type certificate struct {
	ARN       string                `json:"arn"`
	Type      acm.CertificateType   `json:"type"`
	Status    acm.CertificateStatus `json:"status"`
	Failure   acm.FailureReason     `json:"failure,omitzero"`
	Domain    string                `json:"domain,omitzero"` // as requested, or the common name
	Names     []string              `json:"names,omitzero"`  // DNS names, Domain first
	Authority string                `json:"authority,omitzero"`
	Algorithm acm.KeyAlgorithm      `json:"algorithm"`
	Logging   string                `json:"logging"` // preference of transparency logging
	Tags      map[string]string     `json:"tags,omitzero"`

	Created  time.Time `json:"created"`
	Issued   time.Time `json:"issued,omitzero"`
	Imported time.Time `json:"imported,omitzero"`
	// Generation counts what was issued under this ARN.
	Generation int  `json:"generation,omitzero"`
	Exported   bool `json:"exported,omitzero"` // since it was issued or renewed

	Certificate string    `json:"certificate,omitzero"` // PEM
	Chain       string    `json:"chain,omitzero"`       // PEM, from the issuer up
	NotBefore   time.Time `json:"notBefore,omitzero"`
	NotAfter    time.Time `json:"notAfter,omitzero"`
	Serial      string    `json:"serial,omitzero"`

	// Issuers, Root and NoCRLs are as in store.Certificate.
	Issuers []string `json:"issuers,omitzero"`
	Root    string   `json:"root,omitzero"`
	NoCRLs  string   `json:"noCRLs,omitzero"`

	Renewal *renewal `json:"renewal,omitzero"`
}

// renewal is how the newest renewal stands.
type renewal struct {
	Status  acm.RenewalStatus `json:"status"`
	Reason  acm.FailureReason `json:"reason,omitzero"`
	Updated time.Time         `json:"updated"`
}

// status is the certificate's at a time.
func (c *certificate) status(now time.Time) acm.CertificateStatus {
	if c.Status == acm.CertificateStatusIssued && now.After(c.NotAfter) {
		return acm.CertificateStatusExpired
	}
	return c.Status
}

// asAccount is a context for what ACM does on an account's behalf.
func asAccount(ctx context.Context, account string) context.Context {
	return AsService(awsapi.WithPrincipal(ctx, iam.Principal{Account: account, Kind: iam.Root}), acmPrincipal)
}

// newCertificateARN names a new certificate of an account.
func (m *ACM) newCertificateARN(account string) string {
	return "arn:" + awsapi.Partition(m.Region) + ":acm:" + m.Region + ":" + account + ":certificate/" + uuid.NewString()
}

// acmPlace is where the certificate of an ARN would lie.
func acmPlace(arn string) (store.Place, error) {
	fields := strings.Split(arn, ":")
	if len(fields) == 6 && fields[0] == "arn" && fields[2] == "acm" {
		if id, ok := strings.CutPrefix(fields[5], "certificate/"); ok && id != "" && fields[4] != "" && !strings.Contains(id, "/") {
			return store.Place{kindCertificate, fields[4], id}, nil
		}
	}
	return nil, acm.NewInvalidArnException("Invalid ARN: %.300q is not of the form arn:PARTITION:acm:REGION:ACCOUNT:certificate/ID", arn)
}

// taskPlace is where the task of a certificate lies.
func taskPlace(at store.Place) store.Place { return store.Place{kindTask, at[1], at[2]} }

// certificateOf reads the caller's certificate of an ARN.
func certificateOf(ctx context.Context, tx *store.Tx, arn string) (store.Place, *certificate, error) {
	at, err := acmPlace(arn)
	if err != nil {
		return nil, nil, err
	}
	missing := acm.NewResourceNotFoundException("Could not find certificate %.300s.", arn)
	if at[1] != account(ctx) {
		return nil, nil, missing
	}
	object, err := store.GetObject[certificate](tx, at)
	if isNotFound(err) || err == nil && object.Value.ARN != arn {
		return nil, nil, missing
	}
	if err != nil {
		return nil, nil, err
	}
	return at, object.Value, nil
}

// change writes a certificate of the caller's after fn has changed it; fn
// returns false if there is nothing to change.
func (m *ACM) change(ctx context.Context, arn string, fn func(tx *store.Tx, at store.Place, c *certificate) (bool, error)) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		at, c, err := certificateOf(ctx, tx, arn)
		if err != nil {
			return err
		}
		changed, err := fn(tx, at, c)
		if err != nil || !changed {
			return err
		}
		return c.put(tx, at)
	})
	return failure(err)
}

// read reads a certificate of the caller's.
func (m *ACM) read(ctx context.Context, arn string) (*certificate, error) {
	var found *certificate
	_, err := m.Store.Read(ctx, func(tx *store.Tx) (err error) {
		_, found, err = certificateOf(ctx, tx, arn)
		return err
	})
	return found, failure(err)
}
