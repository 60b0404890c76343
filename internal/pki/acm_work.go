package pki

import (
	"context"
	"crypto"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// task is a certificate that is to be issued, the first of its ARN or a renewed
// one. Whoever takes it up makes its key and CSR once; from then on everybody
// asks the authority for the same, under the same token, so that it issues once.
type task struct {
	ARN        string `json:"arn"`
	Generation int    `json:"generation,omitzero"` // of the certificate when the task was made
	CSR        []byte `json:"csr,omitzero"`        // PEM; its key is the task's secret
	Issued     string `json:"issued,omitzero"`     // ARN that the authority gave, if it was not done at once

	// Who works on it, and until when nobody else does. It only saves work.
	Worker string    `json:"worker,omitzero"`
	Until  time.Time `json:"until,omitzero"`

	Failures int       `json:"failures,omitzero"`
	NotYet   time.Time `json:"notYet,omitzero"` // when to try again
}

const (
	// validDays is how long a certificate is valid: 13 months, as AWS has it.
	validDays = 395
	// claimLife is how long a task waits for a worker that has died.
	claimLife = 10 * time.Second
	// answerWithin is how long an authority gets, less than claimLife.
	answerWithin = 8 * time.Second
	// tasksEvery is how often Run looks for tasks of other servers, and for
	// those that are to be tried again.
	tasksEvery = 2 * time.Second
	// atOnce is how many tasks a server works on at the same time.
	atOnce = 8
	// The first and the longest pause after a failure.
	firstPause, longestPause = time.Second, time.Hour
)

// kick makes Run look for tasks now.
func (m *ACM) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run issues what was requested and renews what is due, until ctx ends. Any
// number of servers may do so on one store.
func (m *ACM) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.keys.fill(ctx, m.Log) })
	group.Go(func() error {
		ticker := time.NewTicker(tasksEvery)
		defer ticker.Stop()
		for {
			m.keysAhead(ctx)
			if err := m.step(ctx); err != nil && ctx.Err() == nil {
				m.Log.WarnContext(ctx, "certificates wait to be issued or renewed", "error", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-m.wake:
			case <-ticker.C:
			}
		}
	})
	return group.Wait()
}

// keysAhead begins to make keys as soon as there is an authority that could be
// asked for certificates.
func (m *ACM) keysAhead(ctx context.Context) {
	if m.keys.warmed() {
		return
	}
	one := int64(1)
	list, err := m.Authorities.ListCertificateAuthorities(asAccount(ctx, m.Account), &acmpca.ListCertificateAuthoritiesRequest{MaxResults: &one})
	if err == nil && len(list.CertificateAuthorities) > 0 {
		m.keys.warm()
	}
}

// step makes tasks of what is due and does the tasks that there are.
func (m *ACM) step(ctx context.Context) error {
	if now := m.Now(); now.Sub(m.swept) >= renewalsEvery {
		if err := m.sweep(ctx); err != nil {
			return err
		}
		m.swept = now
	}
	return m.work(ctx)
}

// work does the tasks that can be done now, until there is none.
func (m *ACM) work(ctx context.Context) error {
	for {
		tasks, err := m.ready(ctx)
		if err != nil || len(tasks) == 0 {
			return err
		}
		var group errgroup.Group // one failure does not end the others
		group.SetLimit(atOnce)
		for _, o := range tasks {
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				// What has begun is done even if the server is to end: what the
				// authority has answered would be lost.
				return m.perform(context.WithoutCancel(ctx), o.Place, o.Value)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
}

// ready lists tasks that nobody works on and whose time has come.
func (m *ACM) ready(ctx context.Context) (all []*store.Object[task], err error) {
	now := m.Now()
	err = each(ctx, m.Store, store.Place{kindTask}, func(o *store.Object[task]) error {
		if !o.Value.waits(m.worker, now) && len(all) < batch {
			all = append(all, o)
		}
		return nil
	})
	// Servers that begin with different tasks seldom meet.
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all, err
}

// waits says whether a task is not to be done by a worker now.
func (t *task) waits(worker string, now time.Time) bool {
	return now.Before(t.NotYet) || t.Worker != worker && now.Before(t.Until)
}

// perform does one task. Its error is the store's: what the authority refuses
// goes into the certificate.
func (m *ACM) perform(ctx context.Context, at store.Place, listed *task) error {
	t, c, err := m.claim(ctx, at, listed)
	if err != nil || t == nil {
		return err
	}
	issued, err := m.issue(asAccount(ctx, at[1]), t, c)
	var imported *ca.Imported
	if err == nil {
		imported, err = readIssued(issued, t.CSR)
	}
	if err != nil {
		m.say(ctx, c, t, err)
		return m.put(ctx, at, t, func(_ *store.Tx, t *task, c *certificate) (done bool, _ error) {
			return m.note(t, c, issued, err), nil
		})
	}
	m.Metrics.attempted(c, resultIssued)
	var noCRLs string
	defer func() { m.sayNoCRLs(ctx, c.ARN, noCRLs) }()
	m.Log.InfoContext(ctx, "certificate was issued", "arn", c.ARN, "serial", ca.DescribeSerial(imported.Certificate.SerialNumber), "renewal", c.Generation > 0)
	return m.put(ctx, at, t, func(tx *store.Tx, _ *task, c *certificate) (done bool, _ error) {
		key, err := tx.Secret(at)
		if err != nil {
			return false, err
		}
		now := m.Now().UTC()
		if c.Generation > 0 {
			c.Renewal = &renewal{Status: acm.RenewalStatusSuccess, Updated: now}
		}
		before := c.Serial
		c.take(imported)
		c.Issued = now
		if err := c.trace(tx, imported.Chain); err != nil {
			return false, err
		}
		if err := c.enter(tx, imported.Certificate, before); err != nil {
			return false, err
		}
		noCRLs = c.NoCRLs
		return true, c.putKey(tx, certificateAt(at), key)
	})
}

// certificateAt is where the certificate of a task lies.
func certificateAt(at store.Place) store.Place { return store.Place{kindCertificate, at[1], at[2]} }

// claim takes a task up, and makes its key and CSR if nobody has. It returns no
// task if it is somebody else's, done or not needed any more.
func (m *ACM) claim(ctx context.Context, at store.Place, listed *task) (mine *task, of *certificate, err error) {
	var key, csr []byte
	if listed.CSR == nil {
		if key, csr, err = m.newKey(ctx, at); err != nil {
			return nil, nil, err
		}
	}
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		mine, of = nil, nil
		o, err := store.GetObject[task](tx, at)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		t, now := o.Value, m.Now()
		c, err := store.GetObject[certificate](tx, certificateAt(at))
		if isNotFound(err) || err == nil && c.Value.Generation != t.Generation {
			return tx.DeleteObject(at)
		}
		if err != nil || t.waits(m.worker, now) {
			return err
		}
		if t.CSR == nil {
			if csr == nil {
				return nil // another time
			}
			t.CSR = csr
			if err := tx.PutSecret(at, key); err != nil {
				return err
			}
		}
		t.Worker, t.Until = m.worker, now.Add(claimLife)
		mine, of = t, c.Value
		return store.PutObject(tx, at, t)
	})
	return mine, of, err
}

// newKey makes a key, PKCS #8, and its CSR for the certificate of a task. It
// makes none if somebody else has taken the task up since it was listed.
func (m *ACM) newKey(ctx context.Context, at store.Place) (key, csr []byte, err error) {
	var c *certificate
	_, err = m.Store.Read(ctx, func(tx *store.Tx) error {
		c = nil
		t, err := store.GetObject[task](tx, at)
		if err != nil || t.Value.CSR != nil || t.Value.waits(m.worker, m.Now()) {
			return err
		}
		o, err := store.GetObject[certificate](tx, certificateAt(at))
		if err == nil {
			c = o.Value
		}
		return err
	})
	if c == nil {
		return nil, nil, ignoreNotFound(err)
	}
	made, err := m.keys.take(ca.KeyAlgorithm(c.Algorithm))
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(cryptorand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: c.Domain}, DNSNames: c.Names,
	}, made.Signer())
	if err != nil {
		return nil, nil, fmt.Errorf("make CSR of %s: %w", c.ARN, err)
	}
	if key, err = made.PKCS8(); err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// put writes a task and its certificate after fn has changed them, and deletes
// the task if it is done. It does nothing if somebody else was faster.
func (m *ACM) put(ctx context.Context, at store.Place, mine *task, fn func(tx *store.Tx, t *task, c *certificate) (done bool, err error)) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[task](tx, at)
		if isNotFound(err) {
			return nil
		}
		if err != nil || o.Value.Generation != mine.Generation || !slices.Equal(o.Value.CSR, mine.CSR) {
			return err
		}
		c, err := store.GetObject[certificate](tx, certificateAt(at))
		if isNotFound(err) {
			return tx.DeleteObject(at)
		}
		if err != nil {
			return err
		}
		done, err := fn(tx, o.Value, c.Value)
		if err != nil {
			return err
		}
		if err := c.Value.put(tx, certificateAt(at)); err != nil {
			return err
		}
		if done {
			return tx.DeleteObject(at)
		}
		o.Value.Worker, o.Value.Until = "", time.Time{}
		return store.PutObject(tx, at, o.Value)
	})
	return err
}

// issuance is what an authority has answered.
type issuance struct {
	arn         string // of the certificate, among those of its authority
	certificate string
	chain       string
}

// issue asks the authority for the certificate of a task.
func (m *ACM) issue(ctx context.Context, t *task, c *certificate) (issuance, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var i issuance
	if i.arn = t.Issued; i.arn == "" {
		signing, err := m.mayIssue(ctx, c)
		if err != nil {
			return i, err
		}
		token := sha256.Sum256(fmt.Appendf(nil, "%s %d", c.ARN, t.Generation))
		idempotency := hex.EncodeToString(token[:])[:36]
		out, err := m.Authorities.IssueCertificate(ctx, &acmpca.IssueCertificateRequest{
			CertificateAuthorityArn: c.Authority, Csr: t.CSR, IdempotencyToken: &idempotency, SigningAlgorithm: signing,
			Validity: &acmpca.Validity{Type: acmpca.ValidityPeriodTypeDays, Value: validDays},
		})
		if err != nil {
			return i, err
		}
		i.arn = *out.CertificateArn
	}
	out, err := m.Authorities.GetCertificate(ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: c.Authority, CertificateArn: i.arn})
	if err != nil {
		return i, err
	}
	i.certificate = *out.Certificate
	if out.CertificateChain != nil {
		i.chain = *out.CertificateChain
	}
	return i, nil
}

// errNoPermission is that of an authority whose owner has not let ACM use it.
var errNoPermission = errors.New("the authority does not permit acm.amazonaws.com to issue: give it the permission with acm-pca create-permission --principal acm.amazonaws.com --actions IssueCertificate GetCertificate ListPermissions")

// mayIssue returns how an authority signs, if it lets ACM have certificates.
// Of an authority of another account that one's policy decides, and of one that
// is not active its state: at the authority.
func (m *ACM) mayIssue(ctx context.Context, c *certificate) (acmpca.SigningAlgorithm, error) {
	described, err := m.Authorities.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: c.Authority})
	if err != nil {
		return "", err
	}
	authority := described.CertificateAuthority
	if owner, status := authority.OwnerAccount, authority.Status; owner != nil && *owner == account(ctx) && status != nil && *status == active {
		out, err := m.Authorities.ListPermissions(ctx, &acmpca.ListPermissionsRequest{CertificateAuthorityArn: c.Authority})
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(out.Permissions, permitsACM) {
			return "", errNoPermission
		}
	}
	return authority.CertificateAuthorityConfiguration.SigningAlgorithm, nil
}

func permitsACM(p acmpca.Permission) bool {
	return p.Principal != nil && *p.Principal == acmPrincipal &&
		slices.Contains(p.Actions, acmpca.ActionTypeIssueCertificate) && slices.Contains(p.Actions, acmpca.ActionTypeGetCertificate)
}

// readIssued reads what an authority has answered, and wants it to be for the
// key of the CSR.
func readIssued(i issuance, csr []byte) (*ca.Imported, error) {
	leaf, err := parseCertificate(i.certificate)
	if err != nil {
		return nil, err
	}
	request, err := ca.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(request.PublicKey()) {
		return nil, errors.New("the certificate that the authority has issued is not for the key of the request")
	}
	chain, err := parseChain(i.chain)
	return &ca.Imported{Certificate: leaf, Chain: chain}, err
}

// say logs and counts that a certificate was not issued.
func (m *ACM) say(ctx context.Context, c *certificate, t *task, err error) {
	if inProgress(err) {
		return
	}
	reason, lasting := failureReason(err)
	renewal := c.Generation > 0
	result := resultUnanswered
	if lasting {
		result = resultRefused
	}
	m.Metrics.attempted(c, result)
	m.Log.WarnContext(ctx, "certificate was not issued", "arn", c.ARN, "authority", c.Authority, "renewal", renewal, "reason", reason,
		"attempt", t.Failures+1, "again", renewal || !lasting, "error", err)
}

// note records what kept a task from being done. A request that the authority
// refuses is over with that; whatever else is tried again, ever more slowly.
func (m *ACM) note(t *task, c *certificate, i issuance, err error) (over bool) {
	now := m.Now().UTC()
	reason, lasting := failureReason(err)
	if c.Generation > 0 {
		c.Renewal = &renewal{Status: acm.RenewalStatusPendingAutoRenewal, Updated: now}
		if lasting {
			c.Renewal = &renewal{Status: acm.RenewalStatusFailed, Reason: reason, Updated: now}
		}
	} else if lasting {
		c.Status, c.Failure = acm.CertificateStatusFailed, reason
	}
	pause := longestPause
	if t.Failures < 12 {
		pause = min(longestPause, firstPause<<t.Failures)
	}
	t.Issued, t.NotYet = i.arn, now.Add(pause)
	t.Failures++
	return c.Status == acm.CertificateStatusFailed
}

func inProgress(err error) bool {
	var exception *api.Exception
	return errors.As(err, &exception) && exception.Code == "RequestInProgressException"
}

// failureReason is ACM's name for what an authority has refused, and whether it
// will refuse it again.
func failureReason(err error) (reason acm.FailureReason, lasting bool) {
	if errors.Is(err, errNoPermission) {
		return acm.FailureReasonPcaAccessDenied, true
	}
	switch ca.KindOf(err) {
	case ca.InvalidDuration:
		return acm.FailureReasonPcaInvalidDuration, true
	case ca.NameConstraints:
		return acm.FailureReasonPcaNameConstraintsValidation, true
	}
	var exception *api.Exception
	if !errors.As(err, &exception) {
		return acm.FailureReasonPcaRequestFailed, false
	}
	switch exception.Code {
	case "LimitExceededException":
		return acm.FailureReasonPcaLimitExceeded, true
	case "InvalidArnException":
		return acm.FailureReasonPcaInvalidArn, true
	case "InvalidStateException":
		return acm.FailureReasonPcaInvalidState, true
	case "ResourceNotFoundException":
		return acm.FailureReasonPcaResourceNotFound, true
	case "InvalidArgsException", "MalformedCSRException":
		return acm.FailureReasonPcaInvalidArgs, true
	case "AccessDeniedException":
		return acm.FailureReasonPcaAccessDenied, true
	case "ValidationException": // so Private CA refuses what would outlive it
		if strings.Contains(exception.Message, "validity") {
			return acm.FailureReasonPcaInvalidDuration, true
		}
		return acm.FailureReasonPcaInvalidArgs, true
	}
	return acm.FailureReasonPcaRequestFailed, false
}
