package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/csv"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ocsp"

	"github.com/fairlead/fairlead/api/acmpca"
)

// publishing makes an authority's CRL and OCSP be there.
func publishing(in *acmpca.CreateCertificateAuthorityRequest) {
	in.RevocationConfiguration = &acmpca.RevocationConfiguration{
		CrlConfiguration:  &acmpca.CrlConfiguration{Enabled: ptr(true), ExpirationInDays: ptr(int64(3))},
		OcspConfiguration: &acmpca.OcspConfiguration{Enabled: ptr(true)},
	}
}

func (c *caTest) revoke(authority, serial string, reason acmpca.RevocationReason) error {
	return c.RevokeCertificate(c.ctx, &acmpca.RevokeCertificateRequest{CertificateAuthorityArn: authority, CertificateSerial: serial, RevocationReason: reason})
}

func (c *caTest) own(authority string) *x509.Certificate {
	c.t.Helper()
	out, err := c.GetCertificateAuthorityCertificate(c.ctx, &acmpca.GetCertificateAuthorityCertificateRequest{CertificateAuthorityArn: authority})
	c.must(err)
	return parsePEM(c.t, *out.Certificate)
}

// list fetches the authority's CRL and verifies it.
func (c *caTest) list(authority string) *x509.RevocationList {
	c.t.Helper()
	w := c.fetch(http.MethodGet, "/crl/"+idOf(authority)+".crl")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/pkix-crl" {
		c.t.Fatalf("%d, %v", w.Code, w.Header())
	}
	list, err := x509.ParseRevocationList(w.Body.Bytes())
	c.must(err)
	c.must(list.CheckSignatureFrom(c.own(authority)))
	return list
}

// ask asks for a status by POST, and by GET, which must answer the same.
func (c *caTest) ask(authority string, about, issuer *x509.Certificate, hash crypto.Hash) (*ocsp.Response, []byte) {
	c.t.Helper()
	request, err := ocsp.CreateRequest(about, issuer, &ocsp.RequestOptions{Hash: hash})
	c.must(err)
	var answers [][]byte
	for _, r := range []*http.Request{
		httptest.NewRequestWithContext(c.ctx, http.MethodPost, "/ocsp/"+idOf(authority), bytes.NewReader(request)),
		httptest.NewRequestWithContext(c.ctx, http.MethodGet, "/ocsp/"+idOf(authority)+"/"+url.QueryEscape(base64.StdEncoding.EncodeToString(request)), http.NoBody),
		httptest.NewRequestWithContext(c.ctx, http.MethodGet, "/ocsp/"+idOf(authority)+"/"+base64.StdEncoding.EncodeToString(request), http.NoBody),
	} {
		w := httptest.NewRecorder()
		c.Publisher().ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/ocsp-response" {
			c.t.Fatalf("%d, %v", w.Code, w.Header())
		}
		answers = append(answers, w.Body.Bytes())
	}
	response, err := ocsp.ParseResponseForCert(answers[0], about, issuer)
	for _, other := range answers[1:] {
		r2, err2 := ocsp.ParseResponseForCert(other, about, issuer)
		if (err == nil) != (err2 == nil) || err == nil && r2.Status != response.Status {
			c.t.Errorf("POST and GET answer differently: %v %v, %v %v", response, err, r2, err2)
		}
	}
	if err != nil {
		return nil, answers[0]
	}
	return response, answers[0]
}

// TestRevocation: the next CRL and the next OCSP answer after a revocation have
// it, on every server.
func TestRevocation(t *testing.T) {
	c := newCATest(t)
	root := c.root(100, publishing)
	other := &caTest{NewPrivateCA(c.Config), t, c.ctx, c.clock, c.logs}
	own := c.own(root)
	leafPEM, _ := c.certificate(root, c.issue(root, leafCSR(t, "a.example.com"), "", 10))
	leaf := parsePEM(t, leafPEM)
	if diff := cmp.Diff([][]string{{"http://pki.test/crl/" + idOf(root) + ".crl"}, {"http://pki.test/ocsp/" + idOf(root)}}, [][]string{leaf.CRLDistributionPoints, leaf.OCSPServer}); diff != "" {
		t.Errorf("where the certificate points to (-want +got):\n%s", diff)
	}
	for _, s := range []*caTest{c, other} {
		if list := s.list(root); len(list.RevokedCertificateEntries) != 0 || list.NextUpdate.Sub(list.ThisUpdate) != 3*24*time.Hour {
			t.Errorf("the first list has %d entries, from %s to %s", len(list.RevokedCertificateEntries), list.ThisUpdate, list.NextUpdate)
		}
		if r, _ := s.ask(root, leaf, own, crypto.SHA1); r == nil || r.Status != ocsp.Good {
			t.Errorf("before it is revoked the status is %v", r)
		}
	}
	a, b := c.fetch(http.MethodGet, "/crl/"+idOf(root)+".crl"), c.fetch(http.MethodGet, "/crl/"+idOf(root)+".crl")
	if !bytes.Equal(a.Body.Bytes(), b.Body.Bytes()) {
		t.Error("an unchanged list is signed again")
	}
	c.clock.forward(time.Minute)
	serial := leaf.SerialNumber.Text(16) // without leading zeros, as Terraform sends it
	c.must(c.revoke(root, serial, "KEY_COMPROMISE"))
	for _, s := range []*caTest{c, other} {
		list := s.list(root)
		if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 || list.RevokedCertificateEntries[0].ReasonCode != 1 {
			t.Errorf("the list has %v", list.RevokedCertificateEntries)
		}
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			if r, _ := s.ask(root, leaf, own, hash); r == nil || r.Status != ocsp.Revoked || r.RevocationReason != ocsp.KeyCompromise {
				t.Errorf("after it is revoked the status is %v", r)
			}
		}
	}
	c.refused(c.revoke(root, serial, "SUPERSEDED"), "RequestAlreadyProcessedException", "already")
	c.refused(c.revoke(root, *c.describeCA(root).Serial, "SUPERSEDED"), "InvalidRequestException", "Self-signed certificate can not be revoked")
	c.refused(c.revoke(root, strings.Repeat("ab", 16), "SUPERSEDED"), "ResourceNotFoundException", "")
	c.refused(c.revoke(root, "xyz", "SUPERSEDED"), "InvalidRequestException", "hexadecimal")
	second := c.issue(root, leafCSR(t, "b.example.com"), "", 10)
	c.clock.forward(11 * 24 * time.Hour)
	c.refused(c.revoke(root, idOf(second), "SUPERSEDED"), "InvalidRequestException", "expired")
	if list := c.list(root); len(list.RevokedCertificateEntries) != 1 {
		t.Error("a certificate that has just ended is off the list before one list has had it")
	}
	c.clock.forward(3 * 24 * time.Hour)
	if list := c.list(root); len(list.RevokedCertificateEntries) != 0 {
		t.Error("a certificate that has ended is on the list for ever")
	}
}

// TestOCSPAnswers: what is not ours is not answered for.
func TestOCSPAnswers(t *testing.T) {
	c := newCATest(t)
	root, stranger := c.root(100, publishing), c.root(100)
	own := c.own(root)
	strangers, _ := c.certificate(stranger, c.issue(stranger, leafCSR(t, "x.example.com"), "", 10))
	if r, _ := c.ask(root, parsePEM(t, strangers), own, crypto.SHA256); r == nil || r.Status != ocsp.Unknown {
		t.Errorf("a serial that the authority has not issued: %v", r)
	}
	if _, der := c.ask(root, parsePEM(t, strangers), c.own(stranger), crypto.SHA256); !bytes.Equal(der, ocsp.UnauthorizedErrorResponse) {
		t.Errorf("asked for another authority's: %x", der)
	}
	if _, der := c.ask(stranger, parsePEM(t, strangers), c.own(stranger), crypto.SHA256); !bytes.Equal(der, ocsp.UnauthorizedErrorResponse) {
		t.Errorf("asked where OCSP is off: %x", der)
	}
	for path, want := range map[string]int{
		"/ocsp/" + idOf(root) + "/AAAA": http.StatusOK, "/ocsp/" + idOf(root) + "/%zz": http.StatusOK, "/ocsp/x/": http.StatusOK,
		"/crl/" + idOf(stranger) + ".crl": http.StatusNotFound, "/crl/" + idOf(root): http.StatusNotFound, "/crl/..%2f.crl": http.StatusNotFound,
		"/crl/00000000-0000-0000-0000-000000000000.crl": http.StatusNotFound, "/": http.StatusNotFound,
	} {
		r := httptest.NewRequestWithContext(c.ctx, http.MethodGet, "/", http.NoBody)
		r.URL.Path, r.URL.RawPath = path, path
		w := httptest.NewRecorder()
		c.Publisher().ServeHTTP(w, r)
		if w.Code != want || want == http.StatusOK && !bytes.Equal(w.Body.Bytes(), ocsp.MalformedRequestErrorResponse) {
			t.Errorf("%s: %d %x", path, w.Code, w.Body.Bytes())
		}
	}
	for _, method := range []string{http.MethodDelete, http.MethodPut} {
		if got := c.fetch(method, "/ocsp/"+idOf(root)).Code; got != http.StatusMethodNotAllowed {
			t.Errorf("%s of a status: %d", method, got)
		}
		if got := c.fetch(method, "/crl/"+idOf(root)+".crl").Code; got != http.StatusMethodNotAllowed {
			t.Errorf("%s of a list: %d", method, got)
		}
	}
}

// TestWhereCertificatesPointTo: custom names and what is left out.
func TestWhereCertificatesPointTo(t *testing.T) {
	c := newCATest(t)
	for name, x := range map[string]struct {
		config    acmpca.RevocationConfiguration
		crl, ocsp []string
	}{
		"custom": {acmpca.RevocationConfiguration{
			CrlConfiguration:  &acmpca.CrlConfiguration{Enabled: ptr(true), CustomCname: ptr("crl.example.com"), CustomPath: ptr("lists/a")},
			OcspConfiguration: &acmpca.OcspConfiguration{Enabled: ptr(true), OcspCustomCname: ptr("ocsp.example.com")},
		}, []string{"http://crl.example.com/lists/a/ID.crl"}, []string{"http://ocsp.example.com/ocsp/ID"}},
		"omitted": {acmpca.RevocationConfiguration{
			CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(true), CrlDistributionPointExtensionConfiguration: &acmpca.CrlDistributionPointExtensionConfiguration{OmitExtension: ptr(true)}},
		}, nil, nil},
	} {
		root := c.root(10, func(in *acmpca.CreateCertificateAuthorityRequest) { in.RevocationConfiguration = &x.config })
		leafPEM, _ := c.certificate(root, c.issue(root, leafCSR(t, "a.example.com"), "", 5))
		leaf := parsePEM(t, leafPEM)
		got := [][]string{leaf.CRLDistributionPoints, leaf.OCSPServer}
		for _, urls := range got {
			for i := range urls {
				urls[i] = strings.ReplaceAll(urls[i], idOf(root), "ID")
			}
		}
		if diff := cmp.Diff([][]string{x.crl, x.ocsp}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAuditReport(t *testing.T) {
	c := newCATest(t)
	root := c.root(100)
	direct := c.ctx
	c.ctx = AsService(direct, acmPrincipal)
	leaf := c.issue(root, leafCSR(t, "a,b.example.com"), "", 10)
	c.ctx = direct
	c.must(c.revoke(root, idOf(leaf), "SUPERSEDED"))
	for _, format := range []acmpca.AuditReportResponseFormat{"JSON", "CSV"} {
		in := &acmpca.CreateCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: root, S3BucketName: "bucket", AuditReportResponseFormat: format}
		made, err := c.CreateCertificateAuthorityAuditReport(c.ctx, in)
		c.must(err)
		_, err = c.CreateCertificateAuthorityAuditReport(c.ctx, in)
		c.refused(err, "RequestInProgressException", "being made")
		describe := func() *acmpca.DescribeCertificateAuthorityAuditReportResponse {
			out, err := c.DescribeCertificateAuthorityAuditReport(c.ctx, &acmpca.DescribeCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: root, AuditReportId: *made.AuditReportId})
			c.must(err)
			return out
		}
		if s := *describe().AuditReportStatus; s != acmpca.AuditReportStatusCreating {
			t.Errorf("at first it is %s", s)
		}
		c.must(c.makeReports(c.ctx))
		out := describe()
		if *out.AuditReportStatus != acmpca.AuditReportStatusSuccess || *out.S3Key != *made.S3Key || *out.S3BucketName != "bucket" {
			t.Errorf("then it is %v", out)
		}
		text, err := os.ReadFile(filepath.Join(c.Folder, *made.S3Key))
		c.must(err)
		rows := readReport(t, format, text)
		row := rows[leaf]
		if len(rows) != 2 || row["awsAccountId"] != testAccount || row["requestedByServicePrincipal"] != acmPrincipal || row["serial"] != colons(idOf(leaf)) || row["revocationReason"] != "SUPERSEDED" ||
			row["revokedAt"] != c.clock.Now().UTC().Format("2006-01-02T15:04:05+0000") || row["templateArn"] != "arn:aws:acm-pca:::template/EndEntityCertificate/V1" || row["subject"] != `CN=a\,b.example.com` {
			t.Errorf("%s: %d rows, %v", format, len(rows), row)
		}
	}
	_, err := c.DescribeCertificateAuthorityAuditReport(c.ctx, &acmpca.DescribeCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: root, AuditReportId: "00000000-0000-0000-0000-000000000000"})
	c.refused(err, "ResourceNotFoundException", "no audit report")
}

// readReport reads a report's rows by certificate.
func readReport(t *testing.T, format acmpca.AuditReportResponseFormat, text []byte) map[string]map[string]string {
	t.Helper()
	rows := map[string]map[string]string{}
	if format == "JSON" {
		var all []map[string]string
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for _, row := range all {
			rows[row["certificateArn"]] = row
		}
		return rows
	}
	all, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range all[1:] {
		row := map[string]string{}
		for i, cell := range cells {
			row[all[0][i]] = cell
		}
		rows[row["certificateArn"]] = row
	}
	return rows
}

// FuzzPublisher: whatever path and body come, the answer is one of HTTP's.
func FuzzPublisher(f *testing.F) {
	c := newCATest(f)
	root := c.root(100, publishing)
	request, err := ocsp.CreateRequest(c.own(root), c.own(root), nil)
	c.must(err)
	f.Add("POST", "/ocsp/"+idOf(root), request)
	f.Add("GET", "/ocsp/"+idOf(root)+"/"+base64.StdEncoding.EncodeToString(request), []byte(nil))
	f.Add("GET", "/crl/"+idOf(root)+".crl", pem.EncodeToMemory(&pem.Block{Type: "X"}))
	handler := c.Publisher()
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: path, RawPath: path}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK, http.StatusNotFound, http.StatusMethodNotAllowed:
		default:
			t.Errorf("%s %q: %d", method, path, w.Code)
		}
	})
}

// FuzzCRLName: whatever anybody asks for names one list at most, by one name.
func FuzzCRLName(f *testing.F) {
	for _, name := range []string{"a.crl", "a.1.crl", "a.01.crl", "a.0.crl", "a.-1.crl", "a.1.2.crl", ".crl", "a", "a.99999999999999999999.crl", "a.1.CRL", "a.crl.crl"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		id, generation, ok := parseCRLName(name)
		if ok && (crlName(id, generation) != name || generation < 0) {
			t.Errorf("%q names generation %d of %q, whose list is %q", name, generation, id, crlName(id, generation))
		}
	})
}
