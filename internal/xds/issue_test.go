package xds

import (
	"strings"
	"testing"
	"time"
)

// FuzzIssueRequest: whatever an agent sends is refused or read whole, and what
// was read is within its bounds.
func FuzzIssueRequest(f *testing.F) {
	for _, text := range []string{
		`{"resource":"mesh/m/virtualNode/n","secret":"own-certificate:uri=spiffe%3A%2F%2Fm.fairlead%2Fn","csr":"-----BEGIN CERTIFICATE REQUEST-----"}`,
		`{"resource":"a","resource":"b","secret":"s","csr":"c"}`, `{"resource":"a","secret":"s","csr":"c","names":["b"]}`,
		`{"resource":"a","secret":"s","csr":""}`, `{} {}`, `null`, "{\"resource\":\"\xff\",\"secret\":\"s\",\"csr\":\"c\"}",
		`{"resource":"a","secret":"s","csr":"` + strings.Repeat("x", maxIssueRequest) + `"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseIssueRequest(text)
		if err != nil {
			return
		}
		if size := len(r.Resource) + len(r.Secret) + len(r.CSR); r.Resource == "" || r.Secret == "" || r.CSR == "" || size > len(text) || size > maxIssueRequest {
			t.Errorf("%q is read as %+v", text, r)
		}
	})
}

// TestIssueRequestIsStrict: a name that is given twice or not known is refused.
func TestIssueRequestIsStrict(t *testing.T) {
	for _, text := range []string{
		`{"resource":"a","resource":"b","secret":"s","csr":"c"}`, `{"resource":"a","secret":"s","csr":"c","names":["b"]}`,
		`{"resource":"a","secret":"s"}`, `{"Resource":"a","secret":"s","csr":"c"}`, `{"resource":"a","secret":"s","csr":"c"} ` + "x",
	} {
		if r, err := ParseIssueRequest([]byte(text)); err == nil {
			t.Errorf("%s is read as %+v", text, r)
		}
	}
}

// TestIssueLimits: a key has its burst and then its rate, without a share in what
// others do; keys beyond the bound do not stay.
func TestIssueLimits(t *testing.T) {
	var l issueLimits
	now := time.Unix(1, 0)
	for i := range issueBurst {
		if !l.allow("a", now) {
			t.Fatalf("request %d is refused", i)
		}
	}
	if l.allow("a", now) || !l.allow("b", now) {
		t.Error("a has no end, or is b's")
	}
	if now = now.Add(time.Second); !l.allow("a", now) {
		t.Error("a is refused for ever")
	}
	now = now.Add(time.Hour)
	for i := range maxIssueKeys + 10 {
		l.allow(string(rune(i+1000)), now.Add(time.Duration(i)*time.Minute))
	}
	if len(l.byKey) > maxIssueKeys {
		t.Errorf("%d keys are remembered", len(l.byKey))
	}
}
