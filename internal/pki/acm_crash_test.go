package pki

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// The steps of issuing at which a server can end.
const (
	stepClaimed = "the key is in the store, and the authority was not asked"
	stepLedger  = "the certificate is in the ledger, and nobody was told"
	stepTold    = "the certificate was not fetched"
	stepFetched = "the certificate was fetched and not stored"
	stepStored  = "all is stored"
)

// dying is a real authority in whose calls the server ends, at a step. end does
// not return.
type dying struct {
	acmpca.Service
	step  string
	times atomic.Int64 // that it still happens
	end   func()
}

func (d *dying) reach(step string) {
	if step == d.step && d.times.Add(-1) >= 0 {
		d.end()
	}
}

func (d *dying) IssueCertificate(ctx context.Context, in *acmpca.IssueCertificateRequest) (*acmpca.IssueCertificateResponse, error) {
	d.reach(stepClaimed)
	out, err := d.Service.IssueCertificate(ctx, in)
	d.reach(stepLedger)
	return out, err
}

func (d *dying) GetCertificate(ctx context.Context, in *acmpca.GetCertificateRequest) (*acmpca.GetCertificateResponse, error) {
	d.reach(stepTold)
	out, err := d.Service.GetCertificate(ctx, in)
	d.reach(stepFetched)
	return out, err
}

// Of the process that ends.
const (
	crashStep = "FAIRLEAD_TEST_CRASH_STEP"
	crashDir  = "FAIRLEAD_TEST_CRASH_DIR"
)

// TestKilledAtEachStep ends a process with SIGKILL at each step of issuing a
// certificate and of renewing it. Another one goes on with its store: whatever
// was reached, the certificate is issued once, the renewal too, and what is
// served is in the ledger.
func TestKilledAtEachStep(t *testing.T) {
	if step := os.Getenv(crashStep); step != "" {
		workUntilKilled(t, os.Getenv(crashDir), step)
		return
	}
	for _, step := range []string{stepClaimed, stepLedger, stepTold, stepFetched, stepStored} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			var root, arn, first string
			onStore(t, dir, "request", func(r *acmRig) {
				root = r.permit(r.ca.root(3650))
				arn = r.ask(root, "api.apps.local")
			})
			killedAt(t, dir, step)
			onStore(t, dir, "issue", func(r *acmRig) {
				first = r.wantIssued(root, arn, 1)
				r.export(arn, "correct horse")
				if err := r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}); err != nil {
					t.Fatal(err)
				}
			})
			killedAt(t, dir, step)
			onStore(t, dir, "renew", func(r *acmRig) {
				if second := r.wantIssued(root, arn, 2); second == first {
					t.Errorf("it was not renewed: the serial is still %s", first)
				}
			})
		})
	}
}

// onStore runs fn on the store of a folder, some time after whoever had it last
// was killed.
func onStore(t *testing.T, dir, name string, fn func(r *acmRig)) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		fn(newACMRigOn(t, newCATestOn(t, store.Config{DataDir: dir, UnsafeNoFsync: true}, &clock{now: time.Now().Add(2 * claimLife)})))
	})
	if !ok {
		t.FailNow()
	}
}

// wantIssued does what is left to do, and wants a certificate that is in a
// ledger of n. It returns its serial.
func (r *acmRig) wantIssued(root, arn string, n int) string {
	r.t.Helper()
	r.issued()
	d := r.describe(r.t, arn)
	if *d.Status != "ISSUED" || r.ledger(root) != n {
		r.t.Fatalf("it is %s, and the authority has issued %d, want %d", *d.Status, r.ledger(root), n)
	}
	serial := fmt.Sprintf("%032s", strings.ReplaceAll(*d.Serial, ":", "")) // its leading zeros are not shown
	if _, err := r.ca.GetCertificate(r.ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: root, CertificateArn: certificateARN(root, serial)}); err != nil {
		r.t.Errorf("what is served is not in the ledger: %v", err)
	}
	return serial
}

// killedAt runs workUntilKilled in a process of its own.
func killedAt(t *testing.T, dir, step string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestKilledAtEachStep$")
	cmd.Env = append(os.Environ(), crashStep+"="+step, crashDir+"="+dir)
	out, err := cmd.CombinedOutput()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed: %v\n%s", err, out)
	}
}

// workUntilKilled does all tasks of a store and is killed at a step of the first.
func workUntilKilled(t *testing.T, dir, step string) {
	r := newACMRigOn(t, newCATestOn(t, store.Config{DataDir: dir, UnsafeNoFsync: true}, &clock{now: time.Now()}))
	kill := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		select {}
	}
	d := &dying{Service: r.ca.PrivateCA, step: step, end: kill}
	d.times.Store(1)
	r.Authorities = d
	r.issued()
	d.reach(stepStored)
}
