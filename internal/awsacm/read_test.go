package awsacm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/meshtest"
)

const someARN = "arn:aws:acm:us-east-1:000000000000:certificate/7a1c0b2e"

func TestReadEvent(t *testing.T) {
	good := renewalEvent(someARN)
	e, err := readEvent([]byte(good), meshtest.Region)
	if err != nil || e.DetailType != "ACM Certificate Available" || len(e.Resources) != 1 || e.Resources[0] != someARN {
		t.Fatalf("%+v %v", e, err)
	}
	many := strings.Repeat(`"`+someARN+`",`, maxResources) + `"` + someARN + `"`
	for _, x := range []struct{ name, body, want string }{
		{"no JSON", "x", "is not an event"},
		{"behind it", good + "{}", "is not an event"},
		{"twice", strings.Replace(good, `"version"`, `"source":"aws.acm","version"`, 1), "is not an event"},
		{"unknown member", strings.Replace(good, `"version"`, `"versions":"0","version"`, 1), "is not an event"},
		{"other case", strings.Replace(good, `"source"`, `"Source"`, 1), "is not an event"},
		{"other source", strings.Replace(good, "aws.acm", "aws.ec2", 1), "source:"},
		{"no resource", strings.Replace(good, `"`+someARN+`"`, "", 1), "resources: there are 0"},
		{"too many", strings.Replace(good, `"`+someARN+`"`, many, 1), "resources: there are 101"},
		{"an authority", strings.Replace(good, "arn:aws:acm:us-east-1:000000000000:certificate", "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority", 1), "resources[0]:"},
		{"other region", strings.Replace(good, "acm:us-east-1", "acm:eu-west-1", 1), "resources[0]:"},
		{"too long", strings.Replace(good, "7a1c0b2e", strings.Repeat("a", maxARN), 1), "resources[0]:"},
		{"too large", good + strings.Repeat(" ", MaxEvent), "at most"},
	} {
		if _, err := readEvent([]byte(x.body), meshtest.Region); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

func TestParsePEM(t *testing.T) {
	certificate, key := selfSigned(t)
	one := string(certificate)
	for _, x := range []struct {
		name, text string
		count      int // -1: refused
	}{
		{"nothing", " \n", 0},
		{"one, no end of line", strings.TrimSpace(one), 1},
		{"blank lines between", "\n" + one + "\n\n" + one, 2},
		{"a key", string(key), -1},
		{"text before", "x" + one, -1},
		{"text behind", one + "x", -1},
		{"too many", strings.Repeat(one, maxLong+1), -1},
		{"too large", one + strings.Repeat("\n", maxPEM), -1},
		{"cut off", one[:len(one)/2], -1},
	} {
		all, err := parsePEM(x.text)
		if (err != nil) != (x.count < 0) || err == nil && len(all) != x.count {
			t.Errorf("%s: %d certificates, %v", x.name, len(all), err)
		}
	}
}

// TestRead: what does not fit together is refused, whoever says it.
func TestRead(t *testing.T) {
	root, rootKey := signed(t, nil, nil, "root")
	between, betweenKey := signed(t, root, rootKey, "between")
	leaf, leafKey := signed(t, between, betweenKey, "leaf.example.com")
	stranger, strangerKey := signed(t, nil, nil, "stranger")
	text := func(all ...*x509.Certificate) (joined string) {
		for _, c := range all {
			joined += string(ca.EncodePEM(c.Raw))
		}
		return joined
	}
	key, other := leafKey.Public(), strangerKey.Public()
	for _, x := range []struct {
		name               string
		key                crypto.PublicKey
		certificate, chain string
		want               string
	}{
		{"as AWS gives it", key, text(leaf), text(between, root), ""},
		{"another key", other, text(leaf), text(between, root), "the key that AWS gives is not the certificate's"},
		{"no root", key, text(leaf), text(between), errNoRoot.Error()},
		{"no chain", key, text(leaf), "", errNoRoot.Error()},
		{"another root", key, text(leaf), text(between, stranger), "CN=stranger has not signed"},
		{"out of order", key, text(leaf), text(root, between), "CN=root has not signed"},
		{"the leaf in the chain", key, text(leaf), text(leaf, between, root), "has not signed"},
		{"two leaves", key, text(leaf, leaf), text(between, root), "2 certificates for one"},
		{"a root of its own", other, text(stranger), "", errNoRoot.Error()},
	} {
		s, err := (exported{certificate: x.certificate, chain: x.chain, key: x.key}).read()
		switch {
		case x.want != "":
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s: %v, want %q", x.name, err, x.want)
			}
		case err != nil || s.Roots != text(root) || s.Chain != text(leaf, between) || len(s.Names) != 1 || s.Names[0] != "leaf.example.com":
			t.Errorf("%s: %+v %v", x.name, s, err)
		}
	}
	if _, _, err := readRoot(text(between)); err == nil {
		t.Error("a certificate that another has signed is taken for a root")
	}
}

// signed is a certificate that another one, or itself, has signed.
func signed(t *testing.T, by *x509.Certificate, byKey *ecdsa.PrivateKey, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: !strings.Contains(name, "."), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	if !c.IsCA {
		c.DNSNames, c.KeyUsage = []string{name}, x509.KeyUsageDigitalSignature
	}
	if by == nil {
		by, byKey = c, key
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
}

// FuzzEvent: whatever arrives, an event that is taken names certificates of this
// region alone.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(renewalEvent(someARN)))
	f.Add([]byte(`{"source":"aws.acm","resources":["arn:aws:acm:us-east-1:1:certificate/"],"detail":[[[]]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := readEvent(body, meshtest.Region)
		if err != nil {
			return
		}
		for _, arn := range e.Resources {
			if len(arn) > maxARN || !strings.HasPrefix(arn, "arn:aws:acm:us-east-1:") {
				t.Errorf("%q", arn)
			}
		}
	})
}

// FuzzRead: whatever AWS gives for a certificate and a chain, it is refused or has
// a root.
func FuzzRead(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "\n\n")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, certificate, chain string) {
		if s, err := (exported{certificate: certificate, chain: chain}).read(); err == nil && s.Roots == "" {
			t.Error("no root")
		}
		if root, _, err := readRoot(chain); err == nil && root == "" {
			t.Error("no root")
		}
	})
}
