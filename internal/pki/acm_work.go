package pki

import (
	"context"
	cryptorand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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
	// Algorithm is the certificate's: keys of some take long to make.
	Algorithm acm.KeyAlgorithm `json:"algorithm,omitzero"`
	CSR       []byte           `json:"csr,omitzero"`    // PEM; its key is the task's secret
	Issued    string           `json:"issued,omitzero"` // ARN that the authority gave, if it was not done at once

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
	// atOnce is how many shares of the tasks a server works on at the same time.
	atOnce = 8
	// mostTogether bounds a share, so that there is one for every core soon, and
	// taskKeys is how many keys of the store a task writes at most in one transaction.
	mostTogether, taskKeys = 32, 9
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
		for _, share := range m.shares(tasks) {
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				// What has begun is done even if the server is to end: what the
				// authority has answered would be lost.
				return m.perform(context.WithoutCancel(ctx), share)
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

// shares parts tasks into those that are done together. Whoever waits long for a
// key, or asks an authority that is not this server's, waits alone.
func (m *ACM) shares(tasks []*store.Object[task]) (shares [][]*store.Object[task]) {
	most := 1
	if _, own := m.Authorities.(*PrivateCA); own {
		most = min(mostTogether, m.Store.MostKeys()/taskKeys-1) // the last are for what all have in common
	}
	var alone [][]*store.Object[task]
	var quick []*store.Object[task]
	for _, o := range tasks {
		switch o.Value.Algorithm {
		case acm.KeyAlgorithmEcPrime256v1, acm.KeyAlgorithmEcSecp384r1:
			quick = append(quick, o)
		default:
			alone = append(alone, []*store.Object[task]{o})
		}
	}
	return append(slices.Collect(slices.Chunk(quick, most)), alone...)
}

// waits says whether a task is not to be done by a worker now.
func (t *task) waits(worker string, now time.Time) bool {
	return now.Before(t.NotYet) || t.Worker != worker && now.Before(t.Until)
}

// job is a task in the hands of this server.
type job struct {
	at       store.Place
	key, csr []byte // made for it: PKCS #8, and PEM

	task *task // as it was claimed; nil: it was not
	of   *certificate

	got   issuance
	leaf  *x509.Certificate
	above chain
	err   error // why there is none

	noCRLs string
}

// certificateAt is where the certificate of a task lies.
func certificateAt(at store.Place) store.Place { return store.Place{kindCertificate, at[1], at[2]} }

// perform does tasks together. Its error is the store's: what the authority
// refuses goes into the certificate.
func (m *ACM) perform(ctx context.Context, tasks []*store.Object[task]) error {
	var jobs []*job
	for _, o := range tasks {
		jobs = append(jobs, &job{at: o.Place})
	}
	fault := together(jobs, func(some []*job) error { return m.claim(ctx, some) })
	jobs = slices.DeleteFunc(jobs, func(j *job) bool { return j.task == nil })
	m.issue(ctx, jobs)
	for _, j := range jobs {
		if j.err != nil {
			m.say(ctx, j.of, j.task, j.err)
			continue
		}
		m.Metrics.attempted(j.of, resultIssued)
		m.Log.InfoContext(ctx, "certificate was issued", "arn", j.of.ARN, "serial", ca.DescribeSerial(j.leaf.SerialNumber), "renewal", j.of.Generation > 0)
	}
	fault = errors.Join(fault, together(jobs, func(some []*job) error { return m.finish(ctx, some) }))
	for _, j := range jobs {
		m.sayNoCRLs(ctx, j.of.ARN, j.noCRLs)
	}
	return fault
}

// claim takes tasks up, and makes their keys and CSRs if nobody has. A job has no
// task after it that is somebody else's, done or not needed any more.
func (m *ACM) claim(ctx context.Context, jobs []*job) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		for _, j := range jobs {
			j.task, j.of = nil, nil
		}
		var places []store.Place
		for _, j := range jobs {
			places = append(places, j.at, certificateAt(j.at))
		}
		if err := tx.ReadAhead(places, nil); err != nil {
			return err
		}
		for _, j := range jobs {
			if err := m.take(tx, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, j := range jobs {
			j.task = nil
		}
	}
	return err
}

// take stages that a task is this server's.
func (m *ACM) take(tx *store.Tx, j *job) error {
	o, err := store.GetObject[task](tx, j.at)
	if err != nil {
		return ignoreNotFound(err)
	}
	t, now := o.Value, m.Now()
	c, err := store.GetObject[certificate](tx, certificateAt(j.at))
	if isNotFound(err) || err == nil && c.Value.Generation != t.Generation {
		return tx.DeleteObject(j.at)
	}
	if err != nil || t.waits(m.worker, now) {
		return err
	}
	if t.CSR == nil {
		// Only now is it known that nobody else makes a key, and what the slow ones
		// take is little beside what a transaction may.
		if j.csr == nil {
			if j.key, j.csr, err = m.newKey(c.Value); err != nil {
				return err
			}
		}
		t.CSR = j.csr
		if err := tx.PutSecret(j.at, j.key); err != nil {
			return err
		}
	}
	t.Worker, t.Until = m.worker, now.Add(claimLife)
	j.task, j.of = t, c.Value
	return store.PutObject(tx, j.at, t)
}

// newKey makes a key, PKCS #8, and its CSR, PEM.
func (m *ACM) newKey(c *certificate) (key, csr []byte, err error) {
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

// finish writes what became of tasks. It does nothing where somebody else was faster.
func (m *ACM) finish(ctx context.Context, jobs []*job) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		var objects, secrets []store.Place
		for _, j := range jobs {
			objects = append(objects, j.at, certificateAt(j.at))
			if j.err == nil {
				secrets = append(secrets, j.at)
				objects = append(objects, j.of.entries(j.leaf)...)
			}
		}
		if err := tx.ReadAhead(objects, secrets); err != nil {
			return err
		}
		for _, j := range jobs {
			if err := m.put(tx, j); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// put stages what became of a task: it is done, or will be tried again.
func (m *ACM) put(tx *store.Tx, j *job) error {
	o, err := store.GetObject[task](tx, j.at)
	if isNotFound(err) {
		return nil
	}
	if t := o; err != nil || t.Value.Generation != j.task.Generation || !slices.Equal(t.Value.CSR, j.task.CSR) {
		return err
	}
	at := certificateAt(j.at)
	c, err := store.GetObject[certificate](tx, at)
	if isNotFound(err) {
		return tx.DeleteObject(j.at)
	}
	if err != nil {
		return err
	}
	if j.err == nil {
		if err := tx.DeleteObject(j.at); err != nil {
			return err
		}
		return m.renew(tx, j, c.Value)
	}
	over := m.note(o.Value, c.Value, j.got, j.err)
	if err := c.Value.put(tx, at); err != nil {
		return err
	}
	if over {
		return tx.DeleteObject(j.at)
	}
	o.Value.Worker, o.Value.Until = "", time.Time{}
	return store.PutObject(tx, j.at, o.Value)
}

// renew stages a certificate with what was issued for it, and its key.
func (m *ACM) renew(tx *store.Tx, j *job, c *certificate) error {
	key, err := tx.Secret(j.at)
	if err != nil {
		return err
	}
	now := m.Now().UTC()
	if c.Generation > 0 {
		c.Renewal = &renewal{Status: acm.RenewalStatusSuccess, Updated: now}
	}
	before := c.Serial
	c.take(&ca.Imported{Certificate: j.leaf, Chain: j.above.certificates})
	c.Issued = now
	if err := c.trace(tx, j.above); err != nil {
		return err
	}
	if err := c.enter(tx, j.leaf, before); err != nil {
		return err
	}
	j.noCRLs = c.NoCRLs
	return c.putKey(tx, certificateAt(j.at), key, j.above)
}
