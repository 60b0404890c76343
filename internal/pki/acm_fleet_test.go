package pki

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// fleetRig is two servers on an external etcd, which takes 128 operations in a
// transaction, with a fleet of certificates that are issued.
type fleetRig struct {
	*acmRig
	other *ACM
	etcd  *clientv3.Client
	root  string
	arns  []string
}

func newFleetRig(t *testing.T, n int) *fleetRig {
	t.Helper()
	servers, etcd := newReplicas(t, 2)
	r := newACMRigOn(t, servers[0])
	f := &fleetRig{acmRig: r, other: r.newACM(servers[1].PrivateCA), etcd: etcd, root: r.permit(r.ca.root(3650))}
	for i := range n {
		f.arns = append(f.arns, r.ask(f.root, fmt.Sprintf("h%d.apps.local", i)))
	}
	r.issued()
	for _, arn := range f.arns { // so that it is renewed, as after an export
		r.ca.must(r.change(r.ctx, arn, func(_ *store.Tx, _ store.Place, c *certificate) (bool, error) {
			c.Exported = true
			return true, nil
		}))
	}
	return f
}

// renew has all be renewed that an input asks for.
func (f *fleetRig) renewAll(in RenewalsInput) *Renewals {
	f.t.Helper()
	out, err := f.RenewCertificates(f.ctx, &in)
	f.ca.must(err)
	return out
}

// generations are how often certificates were issued, with how many those are.
func (f *fleetRig) generations() map[int]int {
	f.t.Helper()
	all := map[int]int{}
	f.ca.must(each(f.ctx, f.Store, store.Place{kindCertificate}, func(o *store.Object[certificate]) error {
		all[o.Value.Generation]++
		return nil
	}))
	return all
}

func (f *fleetRig) want(what string, generations map[int]int, ledger int) {
	f.t.Helper()
	if diff := cmp.Diff(generations, f.generations()); diff != "" {
		f.t.Errorf("%s: certificates by generation (-want +got):\n%s", what, diff)
	}
	if n := f.ledger(f.root); n != ledger {
		f.t.Errorf("%s: the authority has issued %d certificates, want %d", what, n, ledger)
	}
}

// tasks are those that are to be done, with how many there are wanted.
func (f *fleetRig) tasks(want int) []*store.Object[task] {
	f.t.Helper()
	tasks, err := f.ready(f.ctx)
	if err != nil || len(tasks) != want {
		f.t.Fatalf("%d tasks, %v, want %d", len(tasks), err, want)
	}
	return tasks
}

func jobsOf(tasks []*store.Object[task]) (jobs []*job) {
	for _, o := range tasks {
		jobs = append(jobs, &job{at: o.Place})
	}
	return jobs
}

// TestRenewMany: two servers renew a fleet together, each certificate once.
func TestRenewMany(t *testing.T) {
	const n = 150
	f := newFleetRig(t, n)
	f.want("issued", map[int]int{1: n}, n)
	if out := f.renewAll(RenewalsInput{All: ptr(true)}); out.Renewing != n || out.Busy+out.Skipped != 0 {
		t.Errorf("%+v", out)
	}
	var group errgroup.Group
	for _, m := range []*ACM{f.ACM, f.other} {
		group.Go(func() error { return m.work(f.ctx) })
	}
	f.ca.must(group.Wait())
	f.want("renewed", map[int]int{2: n}, 2*n)
	if strings.Contains(f.log.String(), "level=WARN") {
		t.Errorf("there are warnings in the log:\n%s", f.log)
	}
	// Each has a key of its own, and the key is that of the certificate: it can be exported.
	keys := map[string]bool{}
	for _, arn := range f.arns[:20] {
		keys[f.export(arn, "correct horse").PrivateKey.Reveal()] = true
	}
	if len(keys) != 20 {
		t.Errorf("20 certificates have %d keys", len(keys))
	}
}

// TestRenewManyOneBad: one that cannot be done does not keep the others from it,
// at whichever step it fails.
func TestRenewManyOneBad(t *testing.T) {
	const n = 30
	f := newFleetRig(t, n)
	f.renewAll(RenewalsInput{All: ptr(true)})
	jobs := jobsOf(f.tasks(n))
	for some := range slices.Chunk(jobs, 10) {
		f.ca.must(f.claim(f.ctx, some))
	}

	// The CSR of one is no CSR, and the key of another is not the one that was stored.
	_, err := f.Store.Write(f.ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[task](tx, jobs[3].at)
		if err != nil {
			return err
		}
		o.Value.CSR = []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
		return store.PutObject(tx, jobs[3].at, o.Value)
	})
	f.ca.must(err)
	swapped := f.secretKeys(jobs[7].at, jobs[8].at)
	stolen, err := f.etcd.Get(f.ctx, swapped[1])
	f.ca.must(err)
	_, err = f.etcd.Put(f.ctx, swapped[0], string(stolen.Kvs[0].Value))
	f.ca.must(err)

	if err := f.work(f.ctx); err == nil || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("the swapped key is not told of: %v", err)
	}
	f.want("but for two", map[int]int{1: 2, 2: n - 2}, 2*n-1)
	progress, err := f.renewals(f.ctx, nil)
	f.ca.must(err)
	bad := RenewalProgress{Waiting: 2, Failing: 1, Reasons: []RenewalReason{{jobs[3].of.ARN, "PCA_INVALID_ARGS"}}}
	if diff := cmp.Diff(bad, progress); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

// secretKeys are the keys in etcd of the secrets of places.
func (f *fleetRig) secretKeys(places ...store.Place) (keys []string) {
	f.t.Helper()
	all, err := f.etcd.Get(f.ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	f.ca.must(err)
	for _, at := range places {
		for _, kv := range all.Kvs {
			if key := string(kv.Key); strings.Contains(key, "secret") && strings.HasSuffix(key, strings.Join(at, "/")) {
				keys = append(keys, key)
			}
		}
	}
	if len(keys) != len(places) {
		f.t.Fatalf("%d places have the secrets %q", len(places), keys)
	}
	return keys
}

// TestRenewManyCrash: a server that dies after each of the steps leaves what
// another finishes, and the authority issues each certificate once. Each step of
// a share is one transaction that an external etcd takes.
func TestRenewManyCrash(t *testing.T) {
	const n = 39
	f := newFleetRig(t, n)
	f.renewAll(RenewalsInput{Certificates: f.arns})
	var shares [][]*job
	for _, some := range f.shares(f.tasks(n)) {
		shares = append(shares, jobsOf(some))
	}
	const share = n / 3
	if len(shares) != 3 || len(shares[2]) != share {
		t.Fatalf("%d tasks are done in %d shares", n, len(shares))
	}
	f.ca.must(f.other.claim(f.ctx, shares[0])) // died before it asked
	f.ca.must(f.other.claim(f.ctx, shares[1]))
	f.other.issue(f.ctx, shares[1]) // died before it wrote
	f.ca.must(f.other.claim(f.ctx, shares[2]))
	f.other.issue(f.ctx, shares[2])
	f.ca.must(f.other.finish(f.ctx, shares[2]))
	for _, j := range append(shares[1], shares[2]...) {
		f.ca.must(j.err)
	}
	f.issued()
	f.want("while the tasks are the other's", map[int]int{1: n - share, 2: share}, n+2*share)
	if out := f.renewAll(RenewalsInput{All: ptr(true)}); out.Busy != 2*share || out.Renewing != 0 || out.Skipped != share {
		t.Errorf("while the tasks are the other's: %+v", out)
	}
	f.issued()
	f.clock.forward(claimLife)
	f.issued()
	f.want("after that", map[int]int{2: n}, 2*n)
	// Whoever comes back late changes nothing.
	f.ca.must(f.other.finish(f.ctx, shares[1]))
	f.want("after a late one", map[int]int{2: n}, 2*n)
}

// TestRenewWhich: which certificates a call renews, which it leaves out and why,
// and what it refuses.
func TestRenewWhich(t *testing.T) {
	r := newACMRig(t)
	one, two := r.permit(r.ca.root(3650)), r.permit(r.ca.root(3650))
	a, b, other, unused := r.ask(one, "a.apps.local"), r.ask(one, "b.apps.local"), r.ask(two, "c.apps.local"), r.ask(one, "d.apps.local")
	r.issued()
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}})
	imported, err := r.ImportCertificate(r.ctx, m.request())
	r.ca.must(err)
	r.use(a, b, other)
	const notUsed, wasImported = "nothing uses it, and it was not exported since it was issued", "it was imported: import its successor under the same ARN"
	for what, c := range map[string]struct {
		in   RenewalsInput
		want []string // renewed
		out  []RenewalReason
	}{
		"named":     {RenewalsInput{Certificates: []string{a, unused}}, []string{a}, []RenewalReason{{unused, notUsed}}},
		"twice":     {RenewalsInput{Certificates: []string{b, b}}, []string{b}, nil},
		"authority": {RenewalsInput{Authority: &one}, []string{a, b}, []RenewalReason{{unused, notUsed}}},
		"other":     {RenewalsInput{Authority: &two}, []string{other}, nil},
		"all":       {RenewalsInput{All: ptr(true)}, []string{a, b, other}, []RenewalReason{{unused, notUsed}, {*imported.CertificateArn, wasImported}}},
	} {
		before := map[string]string{}
		for _, arn := range []string{a, b, other, unused} {
			before[arn] = *r.describe(t, arn).Serial
		}
		out, err := r.RenewCertificates(r.ctx, &c.in)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if out.Renewing != len(c.want) || out.Skipped != len(c.out) || out.Busy != 0 {
			t.Errorf("%s: %+v", what, out)
		}
		less := func(a, b RenewalReason) int { return strings.Compare(a.ARN, b.ARN) }
		if diff := cmp.Diff(slices.SortedFunc(slices.Values(c.out), less), slices.SortedFunc(slices.Values(out.Reasons), less)); diff != "" {
			t.Errorf("%s: left out (-want +got):\n%s", what, diff)
		}
		r.issued()
		for arn, serial := range before {
			if renewed := *r.describe(t, arn).Serial != serial; renewed != strings.Contains(strings.Join(c.want, " "), arn) {
				t.Errorf("%s: %s is renewed: %t", what, arn, renewed)
			}
		}
	}
	missing := strings.Replace(a, a[len(a)-12:], "000000000000", 1)
	for what, c := range map[string]struct {
		in         RenewalsInput
		code, text string
	}{
		"nothing":           {RenewalsInput{}, "InvalidParameterException", "exactly one"},
		"not all":           {RenewalsInput{All: ptr(false)}, "InvalidParameterException", "exactly one"},
		"two":               {RenewalsInput{All: ptr(true), Authority: &one}, "InvalidParameterException", "exactly one"},
		"missing":           {RenewalsInput{Certificates: []string{a, missing}}, "ResourceNotFoundException", "None was renewed"},
		"unknown authority": {RenewalsInput{Authority: ptr(one[:len(one)-12] + "000000000000")}, "ResourceNotFoundException", "below"},
	} {
		_, err := r.RenewCertificates(r.ctx, &c.in)
		t.Log(what)
		wantCode(t, err, c.code, c.text)
	}
	if tasks, err := r.ready(r.ctx); err != nil || len(tasks) > 0 {
		t.Errorf("what was refused has left %d tasks, %v", len(tasks), err)
	}
	// Another account's caller renews nothing of this one's.
	if _, err := r.RenewCertificates(asAccount(r.ctx, "999999999999"), &RenewalsInput{Certificates: []string{a}}); exception(err) != "ResourceNotFoundException" {
		t.Errorf("another account's: %v", err)
	}
}

// TestIssueManyOneRefused: of many requests in one transaction each is answered
// for itself.
func TestIssueManyOneRefused(t *testing.T) {
	c := newCATest(t)
	root := c.root(100)
	var requests []*acmpca.IssueCertificateRequest
	for i := range 10 {
		in := &acmpca.IssueCertificateRequest{CertificateAuthorityArn: root, Csr: leafCSR(t, "a.example.com"), SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 5}}
		switch i {
		case 2:
			in.Validity.Value = 1000 // outlives the authority
		case 5:
			in.Csr = []byte("no CSR")
		case 7:
			in.CertificateAuthorityArn = root[:len(root)-12] + "000000000000"
		}
		requests = append(requests, in)
	}
	want := map[int]string{2: "ValidationException", 5: "MalformedCSRException", 7: "ResourceNotFoundException"}
	seen := map[string]bool{}
	for i, out := range c.issueAll(c.ctx, requests) {
		if want[i] != "" {
			if exception(out.err) != want[i] {
				t.Errorf("request %d: %v, want %s", i, out.err, want[i])
			}
			continue
		}
		if out.err != nil || seen[out.answer] {
			t.Errorf("request %d: %q, %v", i, out.answer, out.err)
			continue
		}
		seen[out.answer] = true
		c.certificate(root, out.answer) // it is in the ledger
	}
	if n := c.ledger(root); n != 1+7 {
		t.Errorf("%d certificates are in the ledger, want the root's own and 7", n)
	}
}

// TestTogether: where the store does not answer, one after the other is not tried.
func TestTogether(t *testing.T) {
	bad := errors.New("bad")
	var calls [][]int
	err := together([]int{1, 2, 3}, func(some []int) error {
		calls = append(calls, some)
		if some[0] == 2 || len(some) > 1 {
			return bad
		}
		return nil
	})
	if diff := cmp.Diff([][]int{{1, 2, 3}, {1}, {2}, {3}}, calls); diff != "" || !errors.Is(err, bad) {
		t.Errorf("%v, calls (-want +got):\n%s", err, diff)
	}
	for _, lasting := range []error{store.ErrUnavailable, store.ErrFull} {
		n := 0
		if err := together([]int{1, 2, 3}, func([]int) error { n++; return lasting }); n != 1 || !errors.Is(err, lasting) {
			t.Errorf("%v after %d calls", err, n)
		}
	}
}
