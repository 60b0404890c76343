package pki

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/ca"
)

// TestCertificateFilters: what each filter lets pass, by the names of certificates.
func TestCertificateFilters(t *testing.T) {
	r := newACMRig(t)
	r.importLeaf(t, leafSpec{algorithm: ca.RSA2048, name: "rsa.apps.local", names: []string{"rsa.apps.local"}})
	r.clock.forward(time.Second)
	r.importLeaf(t, leafSpec{algorithm: ca.P256, name: "ec.apps.local", names: []string{"ec.apps.local"}, from: r.clock.Now(), to: r.clock.Now().Add(time.Hour)})
	r.clock.forward(time.Second)
	if _, err := r.RequestCertificate(r.ctx, acmRequest("pending.apps.local")); err != nil {
		t.Fatal(err)
	}
	ec := []acm.KeyAlgorithm{acm.KeyAlgorithmEcPrime256v1}
	both := append(ec, acm.KeyAlgorithmRsa2048)
	for _, c := range []struct {
		name string
		in   acm.ListCertificatesRequest
		want []string
	}{
		{"RSA alone if nothing is said", acm.ListCertificatesRequest{}, []string{"rsa", "pending"}},
		{"EC", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: ec}}, []string{"ec"}},
		{"both", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: both}}, []string{"rsa", "ec", "pending"}},
		{"issued", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: both}, CertificateStatuses: []acm.CertificateStatus{acm.CertificateStatusIssued}}, []string{"rsa", "ec"}},
		{"pending", acm.ListCertificatesRequest{CertificateStatuses: []acm.CertificateStatus{acm.CertificateStatusPendingValidation}}, []string{"pending"}},
		{"expired", acm.ListCertificatesRequest{CertificateStatuses: []acm.CertificateStatus{acm.CertificateStatusExpired}}, nil},
		{"imported", acm.ListCertificatesRequest{CertificateKeyPairOrigins: []acm.CertificateKeyPairOrigin{acm.CertificateKeyPairOriginCustomerProvided}}, []string{"rsa"}},
		{"ACME", acm.ListCertificatesRequest{CertificateKeyPairOrigins: []acm.CertificateKeyPairOrigin{acm.CertificateKeyPairOriginAcme}}, nil},
		{"exportable", acm.ListCertificatesRequest{Includes: &acm.Filters{ExportOption: ptr(acm.CertificateExportEnabled)}}, []string{"pending"}},
		{"managed", acm.ListCertificatesRequest{Includes: &acm.Filters{ManagedBy: ptr(acm.CertificateManagedByCloudfront)}}, nil},
		{"signing", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyUsage: []acm.KeyUsageName{acm.KeyUsageNameDigitalSignature}}}, []string{"rsa"}},
		{"any usage", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyUsage: []acm.KeyUsageName{acm.KeyUsageNameAny}}}, []string{"rsa"}},
		{"CRL signing", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyUsage: []acm.KeyUsageName{acm.KeyUsageNameCrlSigning}}}, nil},
		{"no extended usage", acm.ListCertificatesRequest{Includes: &acm.Filters{ExtendedKeyUsage: []acm.ExtendedKeyUsageName{acm.ExtendedKeyUsageNameNone}}}, []string{"pending"}},
		{"servers", acm.ListCertificatesRequest{Includes: &acm.Filters{ExtendedKeyUsage: []acm.ExtendedKeyUsageName{acm.ExtendedKeyUsageNameTlsWebServerAuthentication}}}, []string{"rsa"}},
		{"newest first", acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: both}, SortBy: ptr(acm.SortByCreatedAt), SortOrder: ptr(acm.SortOrderDescending)}, []string{"pending", "ec", "rsa"}},
	} {
		sorted := c.in.SortBy != nil
		if !sorted {
			c.in.SortBy, c.in.SortOrder = ptr(acm.SortByCreatedAt), ptr(acm.SortOrderAscending)
		}
		out, err := r.ListCertificates(r.ctx, &c.in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, domainsOf(out)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if !strings.Contains(r.log.String(), "hidden=1") {
		t.Error("the log does not say that a certificate was hidden")
	}
	_, err := r.ListCertificates(r.ctx, &acm.ListCertificatesRequest{SortBy: ptr(acm.SortByCreatedAt)})
	wantCode(t, err, "ValidationException", "go together")
	r.clock.forward(2 * time.Hour)
	out, err := r.ListCertificates(r.ctx, &acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: both}, CertificateStatuses: []acm.CertificateStatus{acm.CertificateStatusExpired}})
	if err != nil || !slices.Equal(domainsOf(out), []string{"ec"}) {
		t.Errorf("expired: %v, %v", domainsOf(out), err)
	}
}

func domainsOf(out *acm.ListCertificatesResponse) []string {
	var names []string
	for _, s := range out.CertificateSummaryList {
		names = append(names, strings.TrimSuffix(*s.DomainName, ".apps.local"))
	}
	return names
}

// TestCertificatePages: pages neither repeat nor skip, in every order, while others
// write; tokens are of one list of one caller.
func TestCertificatePages(t *testing.T) {
	r := newACMRig(t)
	for i := range 23 {
		if _, err := r.RequestCertificate(r.ctx, acmRequest(fmt.Sprintf("h%02d.apps.local", i))); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(time.Second)
	}
	for _, sort := range []*acm.SortOrder{nil, ptr(acm.SortOrderAscending), ptr(acm.SortOrderDescending)} {
		in := &acm.ListCertificatesRequest{MaxItems: ptr(int64(4)), SortOrder: sort}
		if sort != nil {
			in.SortBy = ptr(acm.SortByCreatedAt)
		}
		seen := map[string]int{}
		for pages := 1; ; pages++ {
			out, err := r.ListCertificates(r.ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range out.CertificateSummaryList {
				seen[*s.CertificateArn]++
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				if pages != 6 || len(seen) != 23 {
					t.Errorf("%d certificates on %d pages", len(seen), pages)
				}
				break
			}
		}
		for arn, n := range seen {
			if n != 1 {
				t.Errorf("%s is there %d times", arn, n)
			}
		}
	}
	in := &acm.ListCertificatesRequest{MaxItems: ptr(int64(4))}
	out, err := r.ListCertificates(r.ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	token := *out.NextToken
	for _, bad := range []string{"x", token[:len(token)-1], token + "\n", strings.Repeat("A", 600), ""} {
		_, err := r.ListCertificates(r.ctx, &acm.ListCertificatesRequest{NextToken: &bad})
		wantCode(t, err, "InvalidArgsException", "is not a token of this list")
	}
	_, err = r.ListCertificates(asAccount(t.Context(), "999999999999"), &acm.ListCertificatesRequest{NextToken: &token})
	wantCode(t, err, "InvalidArgsException", "is not a token of this list")
	_, err = r.ListCertificates(r.ctx, &acm.ListCertificatesRequest{NextToken: &token, SortBy: ptr(acm.SortByCreatedAt), SortOrder: ptr(acm.SortOrderAscending)})
	wantCode(t, err, "InvalidArgsException", "is not a token of this list")
}

// TestCertificateTags: added, changed, removed by key and by key and value.
func TestCertificateTags(t *testing.T) {
	r := newACMRig(t)
	arn := r.importLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}}, acm.Tag{Key: "a", Value: ptr("1")})
	add := func(tags ...acm.Tag) error {
		return r.AddTagsToCertificate(r.ctx, &acm.AddTagsToCertificateRequest{CertificateArn: arn, Tags: tags})
	}
	remove := func(tags ...acm.Tag) error {
		return r.RemoveTagsFromCertificate(r.ctx, &acm.RemoveTagsFromCertificateRequest{CertificateArn: arn, Tags: tags})
	}
	want := func(want string) {
		t.Helper()
		out, err := r.ListTagsForCertificate(r.ctx, &acm.ListTagsForCertificateRequest{CertificateArn: arn})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, tag := range out.Tags {
			got = append(got, tag.Key+"="+*tag.Value)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("tags are %v, want %s", got, want)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(add(acm.Tag{Key: "c"}, acm.Tag{Key: "a", Value: ptr("2")}))
	want("a=2 c=")
	check(remove(acm.Tag{Key: "a", Value: ptr("1")}, acm.Tag{Key: "nothing"}))
	want("a=2 c=")
	check(remove(acm.Tag{Key: "a", Value: ptr("2")}, acm.Tag{Key: "c"}))
	want("")
	wantCode(t, add(acm.Tag{Key: "AWS:x"}), "InvalidTagException", "AWS's own")
	var many []acm.Tag
	for i := range maxCertificateTags {
		many = append(many, acm.Tag{Key: fmt.Sprint(i)})
	}
	check(add(many...))
	wantCode(t, add(acm.Tag{Key: "one more"}), "TooManyTagsException", "would have 51")
}

// TestAccountConfiguration: AWS's preset, and each account's own.
func TestAccountConfiguration(t *testing.T) {
	r := newACMRig(t)
	want := func(days int64) {
		t.Helper()
		out, err := r.GetAccountConfiguration(r.ctx)
		if err != nil || *out.ExpiryEvents.DaysBeforeExpiry != days {
			t.Errorf("got %v, %v, want %d days", out, err, days)
		}
	}
	want(45)
	in := &acm.PutAccountConfigurationRequest{IdempotencyToken: "t", ExpiryEvents: &acm.ExpiryEventsConfiguration{DaysBeforeExpiry: ptr(int64(10))}}
	for range 2 {
		if err := r.PutAccountConfiguration(r.ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutAccountConfiguration(asAccount(t.Context(), "999999999999"), &acm.PutAccountConfigurationRequest{IdempotencyToken: "t"}); err != nil {
		t.Fatal(err)
	}
	want(10)
}
