package pki

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/acm"
)

// TestRenewalDue: 60 days before the end or two thirds of the life, whichever
// is later, and a little after.
func TestRenewalDue(t *testing.T) {
	day := 24 * time.Hour
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ life, earliest, latest time.Duration }{
		{395 * day, 335 * day, 341 * day},
		{365 * day, 305 * day, 311 * day},
		{180 * day, 120 * day, 126 * day},
		{90 * day, 60 * day, 63 * day},
		{6 * day, 4 * day, 4*day + 5*time.Hour},
		{0, 0, 0},
	} {
		seen := map[time.Time]bool{}
		for i := range 200 {
			serial := fmt.Sprintf("%02x:%02x", i, 255-i)
			due := RenewalDue(from, from.Add(c.life), serial)
			if due.Before(from.Add(c.earliest)) || due.After(from.Add(c.latest)) {
				t.Errorf("a certificate of %s is due after %s", c.life, due.Sub(from))
			}
			if due != RenewalDue(from, from.Add(c.life), serial) {
				t.Error("it is due at another time when asked again")
			}
			seen[due] = true
		}
		if c.life > 0 && len(seen) < 190 {
			t.Errorf("certificates of %s are due at %d times alone", c.life, len(seen))
		}
	}
}

// TestEligibility: which certificates are renewed without being asked.
func TestEligibility(t *testing.T) {
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*certificate)
		users  []string
		want   acm.RenewalEligibility
	}{
		"neither used nor exported": {func(*certificate) {}, nil, "INELIGIBLE"},
		"used":                      {func(*certificate) {}, []string{"node"}, "ELIGIBLE"},
		"exported":                  {func(c *certificate) { c.Exported = true }, nil, "ELIGIBLE"},
		"imported":                  {func(c *certificate) { c.Type = "IMPORTED" }, []string{"node"}, "INELIGIBLE"},
		"pending":                   {func(c *certificate) { c.Status = "PENDING_VALIDATION" }, []string{"node"}, "INELIGIBLE"},
		"expired":                   {func(c *certificate) { c.NotAfter = now.Add(-time.Second) }, []string{"node"}, "INELIGIBLE"},
		"strange name":              {func(c *certificate) { c.Names = []string{"a.AB--c.local"} }, []string{"node"}, "INELIGIBLE"},
		"IDNA name":                 {func(c *certificate) { c.Names = []string{"a.xn--c.local"} }, []string{"node"}, "ELIGIBLE"},
	} {
		certificate := &certificate{Type: "PRIVATE", Status: "ISSUED", Names: []string{"api.apps.local"}, NotAfter: now.Add(time.Hour)}
		c.change(certificate)
		if got := certificate.eligibility(c.users, now); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestThirteenMonths lets 1,000 certificates live for thirteen months and more,
// with another server every day, after the one before has ended in the middle of
// what it did, if it did anything: none expires, none is renewed twice, no ARN
// changes.
func TestThirteenMonths(t *testing.T) {
	const (
		step = 24 * time.Hour
		week = 7 * 24 * time.Hour
		life = 60 * week

		certificates = 1000
	)
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	serials := map[string][]string{} // by ARN, in their order
	for i := range certificates {
		arn := r.ask(root, fmt.Sprintf("h%d.apps.local", i))
		serials[arn] = nil
	}
	r.issued()
	for arn := range serials {
		serials[arn] = append(serials[arn], *r.describe(t, arn).Serial)
	}
	r.use(slices.Collect(maps.Keys(serials))...)
	steps := []string{stepClaimed, stepLedger, stepTold, stepFetched}
	ended := 0
	renewed, busiest := 0, 0 // busiest: in one week
	for passed := time.Duration(0); passed < life; passed += step {
		r.clock.forward(step)
		r.ACM = r.newACM(r.ca.PrivateCA)
		// A worker that ends there does nothing any more, as in a server that is gone.
		d := &dying{Service: r.ca.PrivateCA, step: steps[int(passed/step)%len(steps)], end: func() { ended++; runtime.Goexit() }}
		d.times.Store(1)
		r.Authorities = d
		if passed%week == 0 {
			for arn := range serials {
				if d := r.describe(t, arn); *d.Status != "ISSUED" {
					t.Fatalf("after %s %s is %s", passed, arn, *d.Status)
				}
			}
			n := r.ledger(root) - certificates
			renewed, busiest = n, max(busiest, n-renewed)
		}
		if err := r.step(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for arn, known := range serials {
		d := r.describe(t, arn)
		if *d.Status != "ISSUED" || *d.Serial == known[0] || d.RenewalSummary.RenewalStatus != "SUCCESS" {
			t.Errorf("%s: %s, serial %s after %s", arn, *d.Status, *d.Serial, known[0])
		}
	}
	if n := r.ledger(root); n != 2*certificates {
		t.Errorf("the authority has issued %d certificates, want two for each of %d", n, certificates)
	}
	if ended < 4 {
		t.Errorf("only %d servers ended in the middle of their work", ended)
	}
	if busiest == certificates {
		t.Error("all certificates were renewed in one week")
	}
}
