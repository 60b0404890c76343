package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// certManagerCSR is a CSR as cert-manager makes it: PEM, with the usages of the
// Certificate as requested extensions.
func certManagerCSR(t *testing.T, eku ...asn1.ObjectIdentifier) []byte {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	request := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "web.example.com"}, DNSNames: []string{"web.example.com", "*.web.example.com"},
		URIs:            []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/apps/sa/web"}},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 0xa0}}},
	}
	if len(eku) > 0 {
		request.ExtraExtensions = append(request.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: must[[]byte](t)(asn1.Marshal(eku))})
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, request, key))})
}

// issuerInput is what aws-privateca-issuer asks for a CertificateRequest: its token
// is of the name, so that it may ask again.
func issuerInput(authority *types.CertificateAuthority, name, template string, csr []byte) *acmpca.IssueCertificateInput {
	sum := sha256.Sum256([]byte("apps/" + name))
	return &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: authority.Arn, SigningAlgorithm: authority.CertificateAuthorityConfiguration.SigningAlgorithm,
		TemplateArn: aws.String("arn:aws:acm-pca:::template/" + template + "/V1"), Csr: csr,
		Validity:         &types.Validity{Type: types.ValidityPeriodTypeAbsolute, Value: aws.Int64(time.Now().Add(30 * 24 * time.Hour).Unix())},
		IdempotencyToken: aws.String(hex.EncodeToString(sum[:])[:36]),
	}
}

// splitChain reads a chain as the issuer does: block after block, and the block
// that nothing at all stands behind is the root.
func splitChain(chain []byte) (between []*x509.Certificate, root *x509.Certificate, err error) {
	for {
		block, behind := pem.Decode(chain)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, nil, errors.New("behind the last certificate stands something that is none")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if len(behind) == 0 {
			return between, c, nil
		}
		between, chain = append(between, c), behind
	}
}

// subordinate makes an ACTIVE CA below a root.
func subordinate(t *testing.T, c *acmpca.Client, root *string) *string {
	t.Helper()
	arn := must[*acmpca.CreateCertificateAuthorityOutput](t)(c.CreateCertificateAuthority(t.Context(), &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: types.CertificateAuthorityTypeSubordinate,
		CertificateAuthorityConfiguration: &types.CertificateAuthorityConfiguration{
			KeyAlgorithm: types.KeyAlgorithmEcPrime256v1, SigningAlgorithm: types.SigningAlgorithmSha256withecdsa, Subject: &types.ASN1Subject{CommonName: aws.String("issuing")},
		},
	})).CertificateAuthorityArn
	csr := must[*acmpca.GetCertificateAuthorityCsrOutput](t)(c.GetCertificateAuthorityCsr(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}))
	issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: root, Csr: []byte(*csr.Csr), SigningAlgorithm: types.SigningAlgorithmSha256withecdsa,
		TemplateArn: aws.String("arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1"), Validity: &types.Validity{Type: types.ValidityPeriodTypeYears, Value: aws.Int64(5)},
	}))
	own := must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: root, CertificateArn: issued.CertificateArn}))
	must[*acmpca.ImportCertificateAuthorityCertificateOutput](t)(c.ImportCertificateAuthorityCertificate(t.Context(), &acmpca.ImportCertificateAuthorityCertificateInput{
		CertificateAuthorityArn: arn, Certificate: []byte(*own.Certificate), CertificateChain: []byte(*own.CertificateChain)}))
	return arn
}

var (
	oidServer  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClient  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	oidEmail   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
	oidOCSP    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
)

// TestCertManager makes the calls of cert-manager's issuer for AWS, and reads the
// answers as it does.
func TestCertManager(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	c := client(t, s)
	rootARN := authority(t, c)
	described := must[*acmpca.DescribeCertificateAuthorityOutput](t)(c.DescribeCertificateAuthority(t.Context(),
		&acmpca.DescribeCertificateAuthorityInput{CertificateAuthorityArn: subordinate(t, c, rootARN)}))
	rootOut := must[*acmpca.GetCertificateAuthorityCertificateOutput](t)(c.GetCertificateAuthorityCertificate(t.Context(), &acmpca.GetCertificateAuthorityCertificateInput{CertificateAuthorityArn: rootARN}))
	for _, x := range []struct {
		name, template string
		asked          []asn1.ObjectIdentifier
		want           []x509.ExtKeyUsage
		ca             bool
	}{
		{"client", "EndEntityClientAuthCertificate", []asn1.ObjectIdentifier{oidClient}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
		{"server", "EndEntityServerAuthCertificate", []asn1.ObjectIdentifier{oidServer}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, false},
		{"both", "EndEntityCertificate", []asn1.ObjectIdentifier{oidClient, oidServer}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, false},
		{"code", "CodeSigningCertificate", []asn1.ObjectIdentifier{oidSigning}, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, false},
		{"ocsp", "OCSPSigningCertificate", []asn1.ObjectIdentifier{oidOCSP}, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, false},
		{"ca", "SubordinateCACertificate_PathLen0", nil, nil, true},
		// Any other usages: the template is blank, nothing is passed through by the
		// API, and what the CSR asks for must arrive.
		{"other", "BlankEndEntityCertificate_APICSRPassthrough", []asn1.ObjectIdentifier{oidServer, oidEmail}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageEmailProtection}, false},
	} {
		input := issuerInput(described.CertificateAuthority, x.name, x.template, certManagerCSR(t, x.asked...))
		issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), input))
		again := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), input))
		if *again.CertificateArn != *issued.CertificateArn {
			t.Errorf("%s: asked again it is %s, not %s", x.name, *again.CertificateArn, *issued.CertificateArn)
		}
		get := &acmpca.GetCertificateInput{CertificateAuthorityArn: input.CertificateAuthorityArn, CertificateArn: issued.CertificateArn}
		if err := acmpca.NewCertificateIssuedWaiter(c).Wait(t.Context(), get, time.Minute); err != nil {
			t.Fatal(err)
		}
		out := must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(t.Context(), get))
		leaf := readLeaf(t, *out.Certificate)
		between, root, err := splitChain([]byte(*out.CertificateChain))
		if err != nil || len(between) != 1 || !bytes.Equal(root.Raw, readLeaf(t, *rootOut.Certificate).Raw) {
			t.Fatalf("%s: %d certificates between, %v", x.name, len(between), err)
		}
		if err := leaf.CheckSignatureFrom(between[0]); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		if leaf.IsCA != x.ca || !slices.Equal(leaf.ExtKeyUsage, x.want) || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || leaf.NotAfter.Unix() != *input.Validity.Value {
			t.Errorf("%s: CA %v, usages %v %v, until %s", x.name, leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage, leaf.NotAfter)
		}
		if leaf.Subject.CommonName != "web.example.com" || !slices.Equal(leaf.DNSNames, []string{"web.example.com", "*.web.example.com"}) || len(leaf.URIs) != 1 {
			t.Errorf("%s: %s, %v, %v", x.name, leaf.Subject, leaf.DNSNames, leaf.URIs)
		}
	}
}

// readLeaf reads a certificate as the issuer does: it adds the end of the line
// that Private CA leaves out, and puts the chain behind it.
func readLeaf(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	if bytes.HasSuffix([]byte(text), []byte("\n")) {
		t.Error("the certificate ends in a line feed, so that there will be an empty line")
	}
	block, behind := pem.Decode([]byte(text + "\n"))
	if block == nil || len(behind) > 0 {
		t.Fatalf("not one certificate: %q", text)
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
}
