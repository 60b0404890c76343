package ca

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// documented is AWS's table of templates, written down from its documentation
// and not from the code: what the template defines, whatever is passed through.
// The passthrough column lists the varieties of the name.
const documented = `
# name                                                 varieties        basic constraints      key usage                                  extended key usage       key ids
EndEntityCertificate                                   -,CSR,API,APICSR CA:FALSE               digitalSignature,keyEncipherment           serverAuth,clientAuth    aki,ski
EndEntityClientAuthCertificate                         -,CSR,API,APICSR CA:FALSE               digitalSignature,keyEncipherment           clientAuth               aki,ski
EndEntityServerAuthCertificate                         -,CSR,API,APICSR CA:FALSE               digitalSignature,keyEncipherment           serverAuth               aki,ski
CodeSigningCertificate                                 -,CSR,API,APICSR CA:FALSE               digitalSignature                           critical,codeSigning     aki,ski
OCSPSigningCertificate                                 -,CSR,API,APICSR CA:FALSE               digitalSignature                           critical,OCSPSigning     aki,ski
RootCACertificate                                      -,API            critical,CA:TRUE       digitalSignature,keyCertSign,cRLSign       -                        ski
SubordinateCACertificate_PathLen0                      -,CSR,API,APICSR critical,CA:TRUE,0     digitalSignature,keyCertSign,cRLSign       -                        aki,ski
SubordinateCACertificate_PathLen1                      -,CSR,API,APICSR critical,CA:TRUE,1     digitalSignature,keyCertSign,cRLSign       -                        aki,ski
SubordinateCACertificate_PathLen2                      -,CSR,API,APICSR critical,CA:TRUE,2     digitalSignature,keyCertSign,cRLSign       -                        aki,ski
SubordinateCACertificate_PathLen3                      -,CSR,API,APICSR critical,CA:TRUE,3     digitalSignature,keyCertSign,cRLSign       -                        aki,ski
BlankEndEntityCertificate                              CSR,API,APICSR   CA:FALSE               -                                          -                        aki,ski
BlankEndEntityCertificate_CriticalBasicConstraints     CSR,API,APICSR   critical,CA:FALSE      -                                          -                        aki,ski
BlankSubordinateCACertificate_PathLen0                 CSR,API,APICSR   critical,CA:TRUE,0     -                                          -                        aki,ski
BlankSubordinateCACertificate_PathLen1                 CSR,API,APICSR   critical,CA:TRUE,1     -                                          -                        aki,ski
BlankSubordinateCACertificate_PathLen2                 CSR,API,APICSR   critical,CA:TRUE,2     -                                          -                        aki,ski
BlankSubordinateCACertificate_PathLen3                 CSR,API,APICSR   critical,CA:TRUE,3     -                                          -                        aki,ski
`

// documentedTemplate is one row, for one variety.
type documentedTemplate struct {
	name, basic, usage, extended, keyIDs string
	api, csr                             bool
}

func documentedTemplates(t testing.TB) []documentedTemplate {
	t.Helper()
	var all []documentedTemplate
	for line := range strings.Lines(documented) {
		columns := strings.Fields(line)
		if len(columns) == 0 || columns[0] == "#" {
			continue
		}
		if len(columns) != 6 {
			t.Fatalf("table: %q", line)
		}
		for variety := range strings.SplitSeq(columns[1], ",") {
			d := documentedTemplate{columns[0], columns[2], columns[3], columns[4], columns[5], strings.HasPrefix(variety, "API"), strings.HasSuffix(variety, "CSR")}
			if variety != "-" {
				d.name += "_" + variety + "Passthrough"
			}
			all = append(all, d)
		}
	}
	return all
}

func (d documentedTemplate) isCA() bool { return strings.Contains(d.basic, "CA:TRUE") }
func (d documentedTemplate) root() bool { return !strings.Contains(d.keyIDs, "aki") }

func TestTemplatesAreTheDocumentedOnes(t *testing.T) {
	var want, got []string
	for _, d := range documentedTemplates(t) {
		want = append(want, "arn:aws-cn:acm-pca:::template/"+d.name+"/V1")
	}
	for template := range Templates() {
		got = append(got, template.ARN("aws-cn"))
		if again, err := ParseTemplateARN("aws-cn", template.ARN("aws-cn")); err != nil || again.Name != template.Name {
			t.Errorf("%s is read as %q, %v", template.Name, again.Name, err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 56 {
		t.Errorf("%d templates, want 56 (-want +got):\n%s", len(got), diff)
	}
	for _, arn := range []string{"arn:aws:acm-pca:::template/EndEntityCertificate/V2", "arn:aws:acm-pca:::template/Nothing/V1", "arn:aws-cn:acm-pca:::template/EndEntityCertificate/V1", "EndEntityCertificate", "arn:aws:acm-pca:us-east-1::template/EndEntityCertificate/V1",
		"arn:aws:acm-pca:::template/BlankEndEntityCertificate/V1", "arn:aws:acm-pca:::template/RootCACertificate_CSRPassthrough/V1"} {
		if _, err := ParseTemplateARN("aws", arn); KindOf(err) != InvalidArgs {
			t.Errorf("%s: %v, want it refused", arn, err)
		}
	}
	if d, err := ParseTemplateARN("aws", ""); err != nil || d.Name != "EndEntityCertificate" {
		t.Errorf("no ARN means %q, %v", d.Name, err)
	}
}

// testAuthority is a root that has an hour of past and ten years of future.
func testAuthority(t testing.TB, algorithm KeyAlgorithm) (*Authority, PrivateKey) {
	t.Helper()
	key := testKey(t, algorithm)
	der, err := SelfSign(key.Signer(), selfRequest(t, key, "Test root"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := NewAuthority(parse(t, der), nil, key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return authority, key
}

func selfRequest(t testing.TB, key PrivateKey, name string) Request {
	t.Helper()
	text, err := AuthorityCSR(key, DefaultSigning(key.Public()), &Subject{Country: "DE", Organization: "Example", CommonName: name}, CSRExtensions{})
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		CSR: parseCSR(t, text), Template: named(t, "RootCACertificate"), Algorithm: DefaultSigning(key.Public()),
		Validity: Validity{Years, 10}, Now: start, Serial: testSerial(t),
	}
}

func testKey(t testing.TB, algorithm KeyAlgorithm) PrivateKey {
	t.Helper()
	key, err := GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testSerial(t testing.TB) Serial {
	t.Helper()
	s, err := NewSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func named(t testing.TB, name string) Template {
	t.Helper()
	template, err := ParseTemplateARN("aws", "arn:aws:acm-pca:::template/"+name+"/V1")
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseCSR(t testing.TB, text []byte) *CSR {
	t.Helper()
	c, err := ParseCSR(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// requestFor makes a CSR with the given content.
func requestFor(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func der(t testing.TB, value any) []byte {
	t.Helper()
	b, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rawNames is a SAN extension's value with one DNS name.
func rawNames(t testing.TB, name string) []byte {
	return der(t, []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}})
}

// drawn is a random choice of extensions by way of a CSR or of the API.
type drawn map[string]pkix.Extension

func (d drawn) list() []pkix.Extension {
	var all []pkix.Extension
	for _, e := range d {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b pkix.Extension) int { return strings.Compare(a.Id.String(), b.Id.String()) })
	return all
}

// draw picks among extensions that a request may carry: those that templates
// define (which must lose), and others.
func draw(t testing.TB, random *mathrand.Rand, from string, isCA bool) drawn {
	usage := []byte{3, 2, 3, 0b10001000} // digitalSignature, keyAgreement
	if isCA {
		usage = []byte{3, 2, 1, 0b10000110}
	}
	choices := []pkix.Extension{
		{Id: oid("2.5.29.19"), Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}},                                  // CA:TRUE
		{Id: oid("2.5.29.15"), Critical: random.IntN(2) == 0, Value: usage},                                         // key usage
		{Id: oid("2.5.29.37"), Critical: random.IntN(2) == 0, Value: der(t, []asn1.ObjectIdentifier{oid("1.2.3")})}, // usages
		{Id: oid("2.5.29.14"), Value: der(t, []byte(from))},
		{Id: oid("2.5.29.35"), Value: der(t, struct {
			ID []byte `asn1:"tag:0"`
		}{[]byte(from)})},
		{Id: oid("2.5.29.32"), Value: der(t, []struct{ ID asn1.ObjectIdentifier }{{oid("1.3.6.1.4.1.99999.1")}})},
		{Id: oid("1.3.6.1.4.1.99999.2"), Critical: random.IntN(2) == 0, Value: der(t, from)},
		{Id: oid("1.3.6.1.4.1.99999.3"), Value: der(t, from+"3")},
		{Id: oid("2.5.29.31"), Value: cdpExtension([]string{"http://" + from + "/crl"}).Value},
		{Id: oid("1.3.6.1.5.5.7.1.1"), Value: aiaExtension("http://" + from + "/ocsp").Value},
	}
	all := drawn{"2.5.29.17": {Id: oid("2.5.29.17"), Value: rawNames(t, from+".example.com")}}
	for _, c := range choices {
		if random.IntN(2) == 0 {
			all[c.Id.String()] = c
		}
	}
	return all
}

func oid(text string) asn1.ObjectIdentifier {
	id, err := parseOID(text)
	if err != nil {
		panic(err)
	}
	return id
}

func custom(extensions []pkix.Extension) *Extensions {
	var e Extensions
	for _, x := range extensions {
		e.Custom = append(e.Custom, CustomExtension{x.Id.String(), x.Critical, base64.StdEncoding.EncodeToString(x.Value)})
	}
	return &e
}

// TestEveryCertificateMatchesItsTemplate draws requests and holds each
// certificate, extension by extension, against the documented table and the
// order template, API, CSR.
func TestEveryCertificateMatchesItsTemplate(t *testing.T) {
	authority, rootKey := testAuthority(t, P256)
	leafKey := testKey(t, P256)
	random, lints := mathrand.New(mathrand.NewPCG(5, 5)), lintRegistry(t)
	for _, d := range documentedTemplates(t) {
		for round := range 16 {
			fromCSR, fromAPI := draw(t, random, "csr", d.isCA()), draw(t, random, "api", d.isCA())
			key := leafKey
			if d.root() {
				key = rootKey
				delete(fromAPI, "2.5.29.35") // an AKI of nobody
			}
			r := Request{
				CSR:      parseCSR(t, requestFor(t, key.Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "csr"}, ExtraExtensions: fromCSR.list()})),
				Template: named(t, d.name), Algorithm: SHA256WithECDSA, Validity: Validity{Days, 30}, Now: start, Serial: testSerial(t),
				Passthrough: &Passthrough{Subject: &Subject{CommonName: "api"}, Extensions: custom(fromAPI.list())},
			}
			if round%2 == 1 {
				r.CRLURLs, r.OCSPURL = []string{"http://config/crl"}, "http://config/ocsp"
			}
			issue := authority.IssueCertificate
			if d.root() {
				issue = func(r Request) ([]byte, error) { return SelfSign(rootKey.Signer(), r) }
			}
			raw, err := issue(r)
			if err != nil {
				t.Fatalf("%s: %v", d.name, err)
			}
			c := parse(t, raw)
			checkExtensions(t, d, c, r, fromCSR, fromAPI, authority.Certificate)
			if round < 3 { // they are slow
				checkLints(t, lints, c, d.name)
			}
			if want := map[bool]string{true: "api", false: "csr"}[d.api]; c.Subject.CommonName != want {
				t.Errorf("%s: subject %s, want %s", d.name, c.Subject, want)
			}
		}
	}
}

// checkExtensions compares all extensions of a certificate with what the
// documentation says of its template and of the passthrough.
func checkExtensions(t *testing.T, d documentedTemplate, c *x509.Certificate, r Request, fromCSR, fromAPI drawn, issuer *x509.Certificate) {
	t.Helper()
	want := map[string]string{}
	put := func(id string, critical bool, content any) {
		if _, defined := want[id]; !defined {
			want[id] = fmt.Sprintf("critical=%t %v", critical, content)
		}
	}
	put("2.5.29.19", strings.HasPrefix(d.basic, "critical"), strings.TrimPrefix(d.basic, "critical,"))
	put("2.5.29.14", false, fmt.Sprintf("%x", documentedKeyID(spkiBits(t, c))))
	if strings.Contains(d.keyIDs, "aki") {
		put("2.5.29.35", false, fmt.Sprintf("%x", issuer.SubjectKeyId))
	}
	if d.usage != "-" {
		put("2.5.29.15", true, d.usage)
	}
	if d.extended != "-" {
		put("2.5.29.37", strings.HasPrefix(d.extended, "critical"), strings.TrimPrefix(d.extended, "critical,"))
	}
	if len(r.CRLURLs) > 0 && !d.root() {
		put("2.5.29.31", false, "[http://config/crl]")
		put("1.3.6.1.5.5.7.1.1", false, "[http://config/ocsp]")
	}
	for id, e := range fromAPI {
		if d.api {
			put(id, e.Critical, fmt.Sprintf("raw %x", e.Value))
		}
	}
	for id, e := range fromCSR {
		if d.csr || id == "2.5.29.17" {
			put(id, e.Critical, fmt.Sprintf("raw %x", e.Value))
		}
	}
	got := map[string]string{}
	for _, e := range c.Extensions {
		content := fmt.Sprintf("raw %x", e.Value)
		if !strings.Contains(want[e.Id.String()], "raw ") {
			content = meaning(c, e.Id.String())
		}
		got[e.Id.String()] = fmt.Sprintf("critical=%t %s", e.Critical, content)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: extensions (-documented +issued):\n%s", d.name, diff)
	}
}

// documentedKeyID is SHA-1, as AWS has it; FIPS mode has none.
func documentedKeyID(bits []byte) []byte {
	if fips140.Enabled() {
		sum := sha256.Sum256(bits)
		return sum[:20]
	}
	sum := sha1.Sum(bits)
	return sum[:]
}

// TestFIPSMode issues by every template in a process that has only approved
// cryptography.
func TestFIPSMode(t *testing.T) {
	for _, mode := range []string{"on", "only"} {
		command := exec.Command(os.Args[0], "-test.run=^(TestCertificateOfEachTemplate|TestIssuedLeafVerifies|TestNameConstraints|TestCRLAsOpenSSLReadsIt)$", "-test.v")
		command.Env = append(os.Environ(), "GODEBUG=fips140="+mode)
		said, err := command.CombinedOutput()
		if err != nil || strings.Count(string(said), "--- PASS") != 4 {
			t.Errorf("fips140=%s: %v\n%s", mode, err, said)
		}
	}
}

func spkiBits(t testing.TB, c *x509.Certificate) []byte {
	t.Helper()
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	return info.Key.Bytes
}

var usageNames = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// meaning is what Go reads in an extension that a template defines.
func meaning(c *x509.Certificate, id string) string {
	switch id {
	case "2.5.29.19":
		if !c.IsCA {
			return "CA:FALSE"
		}
		if c.MaxPathLen < 0 {
			return "CA:TRUE"
		}
		return fmt.Sprintf("CA:TRUE,%d", c.MaxPathLen)
	case "2.5.29.14":
		return fmt.Sprintf("%x", c.SubjectKeyId)
	case "2.5.29.35":
		return fmt.Sprintf("%x", c.AuthorityKeyId)
	case "2.5.29.15":
		var names []string
		for i, name := range usageNames {
			if c.KeyUsage>>i&1 == 1 {
				names = append(names, name)
			}
		}
		return strings.Join(names, ",")
	case "2.5.29.37":
		var names []string
		for _, u := range c.ExtKeyUsage {
			names = append(names, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageCodeSigning: "codeSigning", x509.ExtKeyUsageOCSPSigning: "OCSPSigning"}[u])
		}
		return strings.Join(names, ",")
	case "2.5.29.31":
		return fmt.Sprint(c.CRLDistributionPoints)
	case "1.3.6.1.5.5.7.1.1":
		return fmt.Sprint(c.OCSPServer)
	case "2.5.29.17":
		return fmt.Sprint(c.DNSNames, c.URIs, c.IPAddresses, c.EmailAddresses)
	}
	return "?"
}

// TestCertificateOfEachTemplate is one certificate a template, as a person
// would read it: testdata/templates.txt.
func TestCertificateOfEachTemplate(t *testing.T) {
	authority, rootKey := testAuthority(t, P256)
	leaf := testKey(t, P256)
	var out bytes.Buffer
	out.WriteString("# One certificate of each template, from a CSR with CN=csr, a DNS name, key usage\n# and a custom extension, and an API request with CN=api, usages and policies.\n# go test ./internal/ca -run TestCertificateOfEachTemplate -update\n")
	for template := range Templates() {
		key := leaf
		if template.Root() {
			key = rootKey
		}
		raw, err := goldenIssue(t, authority, key, template)
		if err != nil {
			t.Fatalf("%s: %v", template.Name, err)
		}
		c := parse(t, raw)
		fmt.Fprintf(&out, "\n%s\n  subject %s, %s to %s\n", template.Name, c.Subject, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		for _, e := range c.Extensions {
			fmt.Fprintf(&out, "  %s\n", reduced(c, e))
		}
	}
	const file = "testdata/templates.txt"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("-%s +issued:\n%s", file, diff)
	}
}

func goldenIssue(t *testing.T, authority *Authority, key PrivateKey, template Template) ([]byte, error) {
	t.Helper()
	usage := x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if template.isCA {
		usage = x509.KeyUsageCertSign
	}
	r := Request{
		CSR: parseCSR(t, requestFor(t, key.Signer(), &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "csr"}, DNSNames: []string{"csr.example.com"},
			ExtraExtensions: []pkix.Extension{keyUsageExtension(usage), {Id: oid("1.3.6.1.4.1.99999.2"), Value: []byte{5, 0}}},
		})),
		Template: template, Algorithm: SHA256WithECDSA, Validity: Validity{Months, 1}, Now: start, Serial: testSerial(t),
		Passthrough: &Passthrough{Subject: &Subject{CommonName: "api"}, Extensions: &Extensions{
			KeyUsage: usage, EKU: []ExtendedKeyUsage{{Type: "EMAIL_PROTECTION"}}, Policies: []Policy{{OID: "1.2.3.4", CPSURIs: []string{"http://cps"}}},
		}},
	}
	if template.Root() {
		return SelfSign(key.Signer(), r)
	}
	r.CRLURLs, r.OCSPURL = []string{"http://pki/ca.crl"}, "http://pki/ocsp"
	return authority.IssueCertificate(r)
}

// reduced is an extension as a person reads it, without what is random.
func reduced(c *x509.Certificate, e pkix.Extension) string {
	names := map[string]string{
		"2.5.29.14": "subject key id", "2.5.29.35": "authority key id", "2.5.29.15": "key usage", "2.5.29.37": "extended key usage", "2.5.29.17": "names",
		"2.5.29.19": "basic constraints", "2.5.29.31": "CRL", "1.3.6.1.5.5.7.1.1": "OCSP", "2.5.29.32": "policies",
	}
	id := e.Id.String()
	text := names[id]
	if text == "" {
		text = id
	}
	if e.Critical {
		text += " (critical)"
	}
	switch id {
	case "2.5.29.14", "2.5.29.35":
		return text
	case "2.5.29.32":
		return text + " " + fmt.Sprint(c.Policies)
	case "2.5.29.37":
		if len(c.ExtKeyUsage) == 1 && c.ExtKeyUsage[0] == x509.ExtKeyUsageEmailProtection {
			return text + " emailProtection"
		}
	}
	if content := meaning(c, id); content != "?" {
		return text + " " + content
	}
	return fmt.Sprintf("%s %x", text, e.Value)
}
