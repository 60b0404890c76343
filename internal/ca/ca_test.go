package ca

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func TestIssuedLeafVerifies(t *testing.T) {
	root, err := NewRoot("test root", start, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := root.Issue(Names{DNS: []string{"a.local", "*.b.local"}, URIs: []string{"spiffe://m/a"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, start, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	for _, c := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{"a.local", start, true},
		{"x.b.local", start.Add(23 * time.Hour), true},
		{"127.0.0.1", start, true},
		{"c.local", start, false},
		{"a.local", start.Add(25 * time.Hour), false}, // never longer than its authority
		{"a.local", start.Add(-time.Hour), false},
	} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.name, CurrentTime: c.at})
		if (err == nil) != c.ok {
			t.Errorf("verify %s at %s: %v, want ok %t", c.name, c.at, err, c.ok)
		}
	}
	if pair.Leaf.SerialNumber.BitLen() > 128 || pair.Leaf.SerialNumber.BitLen() < 64 {
		t.Errorf("serial has %d bits", pair.Leaf.SerialNumber.BitLen())
	}
}

func TestLoadIsTheInverseOfEncode(t *testing.T) {
	root, err := NewRoot("test root", start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.EncodeKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(root.PEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Certificate.Equal(root.Certificate) {
		t.Error("another certificate came back")
	}
	other, err := NewRoot("other", start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(other.PEM(), key); err == nil {
		t.Error("a key of another certificate was loaded")
	}
}
