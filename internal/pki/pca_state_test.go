package pki

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// deedsByState reads as facts B.2 does: what an authority lets be done in each
// state. "state" is InvalidStateException, "busy" RequestInProgressException,
// "404" a list that is not there. A root that waits for its certificate signs
// that one and nothing else.
const deedsByState = `
                     issue  self   revoke crl  audit  import update delete restore csr    own    get    permit policy tag    tags
CREATING             state  state  state  404  state  state  state  ok     state   busy   state  state  ok     ok     ok     ok
PENDING_CERTIFICATE  state  ok     state  404  state  ok     state  ok     state   ok     state  ok     ok     ok     ok     ok
ACTIVE               ok     ok     ok     200  ok     ok     ok     state  state   ok     ok     ok     ok     ok     ok     ok
DISABLED             state  state  ok     200  ok     state  ok     ok     state   ok     ok     ok     ok     ok     ok     ok
EXPIRED              state  state  state  404  state  ok     state  ok     state   ok     ok     ok     ok     ok     ok     ok
FAILED               state  state  state  404  state  state  state  ok     state   state  state  state  state  state  state  ok
DELETED              state  state  state  404  state  state  state  state  ok      state  state  state  state  state  state  state
`

// subject is a root authority in some state, with what was made while it could.
type subject struct {
	*caTest
	arn    string
	leaf   string // ARN
	own    []byte // its certificate, and one that comes later
	next   []byte
	csrPEM []byte
}

// inState makes a root in a state, the way that leads there.
func inState(c *caTest, state acmpca.CertificateAuthorityStatus) *subject {
	c.t.Helper()
	on := true
	in := createRequest("ROOT", "Example root")
	in.RevocationConfiguration = &acmpca.RevocationConfiguration{CrlConfiguration: &acmpca.CrlConfiguration{Enabled: &on}}
	if state == creating {
		in.CertificateAuthorityConfiguration.KeyAlgorithm, in.CertificateAuthorityConfiguration.SigningAlgorithm = "RSA_2048", "SHA256WITHRSA"
	}
	s := &subject{caTest: c, arn: c.create(in), csrPEM: leafCSR(c.t, "a.example.com")}
	if state == creating {
		return s
	}
	s.csrPEM = c.csr(s.arn)
	leaf := c.issue(s.arn, s.csrPEM, rootTemplate, 30)
	own, _ := c.certificate(s.arn, leaf)
	next, _ := c.certificate(s.arn, c.issue(s.arn, s.csrPEM, rootTemplate, 3000))
	s.leaf, s.own, s.next = leaf, []byte(own), []byte(next)
	if state == pending {
		return s
	}
	c.must(s.importCertificate(s.own))
	s.leaf = c.issue(s.arn, leafCSR(c.t, "a.example.com"), "", 29)
	switch state {
	case disabled:
		c.must(s.update(disabled))
	case expired:
		c.clock.forward(31 * 24 * time.Hour)
	case deleted:
		c.must(s.update(disabled))
		c.must(s.remove())
	case failed:
		c.force(s.arn, func(a *authority) { a.Status = failed })
	}
	return s
}

// force puts an authority into a state that no operation leads to.
func (c *caTest) force(arn string, fn func(a *authority)) {
	c.t.Helper()
	at, err := c.parseARN(c.ctx, "", arn)
	c.must(err)
	_, err = c.Store.Write(c.ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		if err != nil {
			return err
		}
		fn(o.Value)
		return store.PutObject(tx, at, o.Value)
	})
	c.must(err)
}

func (s *subject) importCertificate(own []byte) error {
	return s.ImportCertificateAuthorityCertificate(s.ctx, &acmpca.ImportCertificateAuthorityCertificateRequest{CertificateAuthorityArn: s.arn, Certificate: own})
}

func (s *subject) update(to acmpca.CertificateAuthorityStatus) error {
	return s.UpdateCertificateAuthority(s.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: s.arn, Status: &to})
}

func (s *subject) remove() error {
	return s.DeleteCertificateAuthority(s.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: s.arn})
}

func (s *subject) sign(csr []byte, template string) error {
	_, err := s.IssueCertificate(s.ctx, &acmpca.IssueCertificateRequest{
		CertificateAuthorityArn: s.arn, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 1}, TemplateArn: &template,
	})
	return err
}

func (c *caTest) fetch(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	c.Publisher().ServeHTTP(w, httptest.NewRequestWithContext(c.ctx, method, path, http.NoBody))
	return w
}

// deedsOf does each thing, by its column.
func deedsOf(ctx context.Context, s *subject) map[string]func() error {
	return map[string]func() error{
		"issue": func() error {
			return s.sign(leafCSR(s.t, "b.example.com"), "arn:aws:acm-pca:::template/EndEntityCertificate/V1")
		},
		"self":   func() error { return s.sign(s.csrPEM, rootTemplate) },
		"import": func() error { return s.importCertificate(s.next) },
		"update": func() error { return s.update(active) },
		"delete": s.remove,
		"restore": func() error {
			return s.RestoreCertificateAuthority(ctx, &acmpca.RestoreCertificateAuthorityRequest{CertificateAuthorityArn: s.arn})
		},
		"revoke": func() error {
			return s.RevokeCertificate(ctx, &acmpca.RevokeCertificateRequest{CertificateAuthorityArn: s.arn, CertificateSerial: "0" + idOf(s.leaf), RevocationReason: "SUPERSEDED"})
		},
		"audit": func() error {
			_, err := s.CreateCertificateAuthorityAuditReport(ctx, &acmpca.CreateCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: s.arn, S3BucketName: "any", AuditReportResponseFormat: "JSON"})
			return err
		},
		"csr": func() error {
			_, err := s.GetCertificateAuthorityCsr(ctx, &acmpca.GetCertificateAuthorityCsrRequest{CertificateAuthorityArn: s.arn})
			return err
		},
		"own": func() error {
			_, err := s.GetCertificateAuthorityCertificate(ctx, &acmpca.GetCertificateAuthorityCertificateRequest{CertificateAuthorityArn: s.arn})
			return err
		},
		"get": func() error {
			leaf := s.leaf
			if leaf == "" {
				leaf = certificateARN(s.arn, strings.Repeat("0", 32))
			}
			_, err := s.GetCertificate(ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: s.arn, CertificateArn: leaf})
			return err
		},
		"permit": func() error {
			return s.CreatePermission(ctx, &acmpca.CreatePermissionRequest{CertificateAuthorityArn: s.arn, Principal: acmPrincipal, Actions: []acmpca.ActionType{"IssueCertificate"}})
		},
		"policy": func() error {
			return s.DeletePolicy(ctx, &acmpca.DeletePolicyRequest{ResourceArn: s.arn})
		},
		"tag": func() error {
			return s.TagCertificateAuthority(ctx, &acmpca.TagCertificateAuthorityRequest{CertificateAuthorityArn: s.arn, Tags: []acmpca.Tag{{Key: "a", Value: ptr("b")}}})
		},
		"tags": func() error {
			_, err := s.ListTags(ctx, &acmpca.ListTagsRequest{CertificateAuthorityArn: s.arn})
			return err
		},
	}
}

func TestWhatEachStateAllows(t *testing.T) {
	c := newCATest(t)
	lines := strings.Split(strings.TrimSpace(deedsByState), "\n")
	columns := strings.Fields(lines[0])
	codes := map[string]string{"": "ok", "InvalidStateException": "state", "RequestInProgressException": "busy"}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		state := acmpca.CertificateAuthorityStatus(cells[0])
		for i, want := range cells[1:] {
			s := inState(c, state)
			before := c.status(s.arn)
			if before != state {
				t.Fatalf("the authority is %s, want %s", before, state)
			}
			got := ""
			if columns[i] == "crl" {
				got = map[int]string{200: "200", 404: "404"}[c.fetch(http.MethodGet, "/crl/"+idOf(s.arn)+".crl").Code]
			} else {
				err := deedsOf(c.ctx, s)[columns[i]]()
				got = codes[exception(err)]
				if got == "" {
					t.Errorf("%s: %s: %v", state, columns[i], err)
				}
			}
			if got != want {
				t.Errorf("%s: %s: got %s, want %s", state, columns[i], got, want)
			}
			if want == "state" && c.status(s.arn) != before {
				t.Errorf("%s: %s: refused, and the status is now %s", state, columns[i], c.status(s.arn))
			}
		}
	}
}

func (c *caTest) describeCA(arn string) *acmpca.CertificateAuthority {
	c.t.Helper()
	out, err := c.DescribeCertificateAuthority(c.ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: arn})
	c.must(err)
	return out.CertificateAuthority
}

func (c *caTest) status(arn string) acmpca.CertificateAuthorityStatus {
	c.t.Helper()
	return *c.describeCA(arn).Status
}

// TestTransitions: where each deed leads.
func TestTransitions(t *testing.T) {
	c := newCATest(t)
	for _, x := range []struct {
		from, to acmpca.CertificateAuthorityStatus
		do       string
	}{
		{pending, active, "import"},
		{expired, active, "import"},
		{active, active, "import"},
		{disabled, active, "update"},
		{pending, deleted, "delete"},
		{disabled, deleted, "delete"},
		{expired, deleted, "delete"},
		{deleted, disabled, "restore"},
	} {
		s := inState(c, x.from)
		c.must(deedsOf(c.ctx, s)[x.do]())
		if got := c.status(s.arn); got != x.to {
			t.Errorf("%s, %s: now %s, want %s", x.from, x.do, got, x.to)
		}
	}
	for _, from := range []acmpca.CertificateAuthorityStatus{creating, failed} { // not restorable
		s := inState(c, from)
		c.must(s.remove())
		_, err := c.DescribeCertificateAuthority(c.ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: s.arn})
		c.refused(err, "ResourceNotFoundException", s.arn)
	}
	s := inState(c, disabled)
	c.must(s.update(disabled)) // Terraform does so twice
	c.clock.forward(31 * 24 * time.Hour)
	if got := c.status(s.arn); got != expired {
		t.Errorf("disabled, and its certificate has ended: %s", got)
	}
	c.must(s.importCertificate(s.next))
	if got := c.status(s.arn); got != disabled {
		t.Errorf("disabled, expired, imported: %s, want %s", got, disabled)
	}
}

// TestDeletedForGood: after its days an authority is not there, and its key and
// ledger go.
func TestDeletedForGood(t *testing.T) {
	c := newCATest(t)
	s := inState(c, disabled)
	c.must(c.DeleteCertificateAuthority(c.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: s.arn, PermanentDeletionTimeInDays: ptr(int64(7))}))
	until := c.describeCA(s.arn).RestorableUntil.Time
	if want := c.clock.Now().AddDate(0, 0, 7); !until.Equal(want) {
		t.Errorf("restorable until %s, want %s", until, want)
	}
	c.clock.forward(7*24*time.Hour - time.Second)
	c.must(c.sweep(c.ctx))
	c.must(c.RestoreCertificateAuthority(c.ctx, &acmpca.RestoreCertificateAuthorityRequest{CertificateAuthorityArn: s.arn}))
	c.must(c.DeleteCertificateAuthority(c.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: s.arn, PermanentDeletionTimeInDays: ptr(int64(7))}))
	c.clock.forward(7 * 24 * time.Hour)
	err := c.RestoreCertificateAuthority(c.ctx, &acmpca.RestoreCertificateAuthorityRequest{CertificateAuthorityArn: s.arn})
	c.refused(err, "ResourceNotFoundException", s.arn)
	list, err := c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{})
	c.must(err)
	if len(list.CertificateAuthorities) != 0 {
		t.Errorf("%d authorities are listed", len(list.CertificateAuthorities))
	}
	c.must(c.sweep(c.ctx))
	_, err = c.Store.Read(c.ctx, func(tx *store.Tx) error {
		id := idOf(s.arn)
		for _, at := range []store.Place{placeOf(testAccount, id), ownerPlace(id), certificatePlace(id, idOf(s.leaf)), revocationsPlace(id)} {
			if _, err := store.GetObject[struct{}](tx, at); !isNotFound(err) {
				t.Errorf("%v is still there: %v", at, err)
			}
		}
		if _, err := tx.Secret(placeOf(testAccount, id)); !isNotFound(err) {
			t.Errorf("the key is still there: %v", err)
		}
		return nil
	})
	c.must(err)
}
