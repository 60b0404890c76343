package pki

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
)

func TestCreateRefuses(t *testing.T) {
	c := newCATest(t)
	crl := func(change func(*acmpca.CrlConfiguration)) func(*acmpca.CreateCertificateAuthorityRequest) {
		return func(in *acmpca.CreateCertificateAuthorityRequest) {
			l := &acmpca.CrlConfiguration{Enabled: ptr(true)}
			change(l)
			in.RevocationConfiguration = &acmpca.RevocationConfiguration{CrlConfiguration: l}
		}
	}
	ocsp := func(o acmpca.OcspConfiguration) func(*acmpca.CreateCertificateAuthorityRequest) {
		return func(in *acmpca.CreateCertificateAuthorityRequest) {
			in.RevocationConfiguration = &acmpca.RevocationConfiguration{OcspConfiguration: &o}
		}
	}
	algorithm := func(key acmpca.KeyAlgorithm, signing acmpca.SigningAlgorithm) func(*acmpca.CreateCertificateAuthorityRequest) {
		return func(in *acmpca.CreateCertificateAuthorityRequest) {
			in.CertificateAuthorityConfiguration.KeyAlgorithm, in.CertificateAuthorityConfiguration.SigningAlgorithm = key, signing
		}
	}
	for name, x := range map[string]struct {
		change        func(*acmpca.CreateCertificateAuthorityRequest)
		code, message string
	}{
		"ML-DSA key":      {algorithm("ML_DSA_65", "ML_DSA_65"), "InvalidArgsException", "KeyAlgorithm ML_DSA_65 is not offered"},
		"SM2 key":         {algorithm("SM2", "SM3WITHSM2"), "InvalidArgsException", "KeyAlgorithm SM2"},
		"PSS":             {algorithm("RSA_2048", "SHA256WITHRSA_PSS"), "InvalidArgsException", "SHA256WITHRSA_PSS"},
		"family":          {algorithm("EC_prime256v1", "SHA256WITHRSA"), "InvalidArgsException", "EC_prime256v1"},
		"other family":    {algorithm("RSA_4096", "SHA256WITHECDSA"), "InvalidArgsException", "RSA_4096"},
		"partitions":      {crl(func(l *acmpca.CrlConfiguration) { l.CrlType = ptr(acmpca.CrlTypePartitioned) }), "InvalidArgsException", "PARTITIONED"},
		"off with more":   {crl(func(l *acmpca.CrlConfiguration) { l.Enabled, l.ExpirationInDays = ptr(false), ptr(int64(7)) }), "InvalidArgsException", "Enabled is false"},
		"scheme in cname": {crl(func(l *acmpca.CrlConfiguration) { l.CustomCname = ptr("http://crl.example.com") }), "InvalidArgsException", "without scheme"},
		"path alone":      {crl(func(l *acmpca.CrlConfiguration) { l.CustomPath = ptr("lists") }), "InvalidArgsException", "CustomPath"},
		"cname and omit": {crl(func(l *acmpca.CrlConfiguration) {
			l.CustomCname = ptr("c.example.com")
			l.CrlDistributionPointExtensionConfiguration = &acmpca.CrlDistributionPointExtensionConfiguration{OmitExtension: ptr(true)}
		}), "InvalidArgsException", "OmitExtension"},
		"OCSP off and more": {ocsp(acmpca.OcspConfiguration{Enabled: ptr(false), OcspCustomCname: ptr("o.example.com")}), "InvalidArgsException", "Enabled is false"},
		"OCSP scheme":       {ocsp(acmpca.OcspConfiguration{Enabled: ptr(true), OcspCustomCname: ptr("https://o.example.com")}), "InvalidArgsException", "without scheme"},
		"tag twice":         {func(in *acmpca.CreateCertificateAuthorityRequest) { in.Tags = []acmpca.Tag{{Key: "a"}, {Key: "a"}} }, "InvalidTagException", "twice"},
		"tag of AWS":        {func(in *acmpca.CreateCertificateAuthorityRequest) { in.Tags = []acmpca.Tag{{Key: "aws:a"}} }, "InvalidTagException", "reserved"},
		"mixed subject": {func(in *acmpca.CreateCertificateAuthorityRequest) {
			in.CertificateAuthorityConfiguration.Subject.CustomAttributes = []acmpca.CustomAttribute{{ObjectIdentifier: "2.5.4.3", Value: "x"}}
		}, "InvalidArgsException", ""},
	} {
		in := createRequest("ROOT", "refused")
		x.change(in)
		_, err := c.CreateCertificateAuthority(c.ctx, in)
		t.Log(name)
		c.refused(err, x.code, x.message)
	}
	list, err := c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{})
	c.must(err)
	if len(list.CertificateAuthorities) > 0 {
		t.Errorf("%d authorities are there", len(list.CertificateAuthorities))
	}
}

// TestDescribeShowsWhatWasAsked: nothing is filled in but what AWS fills in.
func TestDescribeShowsWhatWasAsked(t *testing.T) {
	c := newCATest(t)
	in := createRequest("SUBORDINATE", "shown")
	in.CertificateAuthorityConfiguration.CsrExtensions = &acmpca.CsrExtensions{KeyUsage: &acmpca.KeyUsage{KeyCertSign: ptr(true), CRLSign: ptr(true)}}
	arn := c.create(in)
	now := api.Timestamp{Time: c.clock.Now().UTC()}
	want := &acmpca.CertificateAuthority{
		Arn: &arn, OwnerAccount: ptr(testAccount), Type: ptr(acmpca.CertificateAuthorityTypeSubordinate), Status: ptr(pending),
		CertificateAuthorityConfiguration: in.CertificateAuthorityConfiguration, CreatedAt: now, LastStateChangeAt: now,
		KeyStorageSecurityStandard: ptr(acmpca.KeyStorageSecurityStandardFips1402Level3OrHigher), UsageMode: ptr(acmpca.CertificateAuthorityUsageModeGeneralPurpose),
		RevocationConfiguration: &acmpca.RevocationConfiguration{CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(false)}, OcspConfiguration: &acmpca.OcspConfiguration{Enabled: ptr(false)}},
	}
	if diff := cmp.Diff(want, c.describeCA(arn)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	root := c.root(10)
	own := c.describeCA(root)
	if own.Serial == nil || len(*own.Serial) != 47 || own.NotAfter.Sub(c.clock.Now()) != 10*24*time.Hour {
		t.Errorf("serial %v, not after %s", own.Serial, own.NotAfter)
	}
}

func TestUpdate(t *testing.T) {
	c := newCATest(t)
	root := c.root(10)
	on := acmpca.RevocationConfiguration{CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(true), ExpirationInDays: ptr(int64(3)), S3BucketName: ptr("any")}}
	c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: root, RevocationConfiguration: &on}))
	on.OcspConfiguration = &acmpca.OcspConfiguration{Enabled: ptr(false)}
	if diff := cmp.Diff(&on, c.describeCA(root).RevocationConfiguration); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, to := range []acmpca.CertificateAuthorityStatus{creating, expired, deleted} {
		c.refused(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: root, Status: &to}), "InvalidArgsException", string(to))
	}
	c.refused((inState(c, pending)).update(disabled), "InvalidStateException", "The certificate authority must be in the ACTIVE or DISABLED state to be updated")
	_, err := c.GetCertificateAuthorityCertificate(c.ctx, &acmpca.GetCertificateAuthorityCertificateRequest{CertificateAuthorityArn: inState(c, pending).arn})
	c.refused(err, "InvalidStateException", "is not in the correct state to have a certificate signing request.")
}

func TestListPages(t *testing.T) {
	c := newCATest(t)
	want := map[string]bool{}
	for range 5 {
		want[c.create(createRequest("ROOT", "listed"))] = true
	}
	other := callerOf(t.Context(), "999999999999")
	for pages, token := 0, (*string)(nil); ; pages++ {
		out, err := c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{MaxResults: ptr(int64(2)), NextToken: token})
		c.must(err)
		for _, a := range out.CertificateAuthorities {
			if !want[*a.Arn] {
				t.Errorf("%s is listed twice, or was never made", *a.Arn)
			}
			delete(want, *a.Arn)
		}
		token = out.NextToken
		if token == nil {
			if len(want) > 0 || pages != 2 {
				t.Errorf("after %d pages %d are missing", pages+1, len(want))
			}
			break
		}
		_, err = c.ListCertificateAuthorities(other, &acmpca.ListCertificateAuthoritiesRequest{NextToken: token})
		c.refused(err, "InvalidNextTokenException", "not a token of this list")
	}
	for _, token := range []string{"x", "", strings.Repeat("A", 43000)} {
		_, err := c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{NextToken: &token})
		c.refused(err, "InvalidNextTokenException", "")
	}
	out, err := c.ListCertificateAuthorities(other, &acmpca.ListCertificateAuthoritiesRequest{})
	c.must(err)
	if len(out.CertificateAuthorities) > 0 {
		t.Error("an account sees another's authorities")
	}
}

func TestTags(t *testing.T) {
	c := newCATest(t)
	in := createRequest("ROOT", "tagged")
	in.Tags = []acmpca.Tag{{Key: "b", Value: ptr("1")}, {Key: "a"}}
	arn := c.create(in)
	c.must(c.TagCertificateAuthority(c.ctx, &acmpca.TagCertificateAuthorityRequest{CertificateAuthorityArn: arn, Tags: []acmpca.Tag{{Key: "b", Value: ptr("2")}, {Key: "c", Value: ptr("3")}}}))
	c.must(c.UntagCertificateAuthority(c.ctx, &acmpca.UntagCertificateAuthorityRequest{CertificateAuthorityArn: arn, Tags: []acmpca.Tag{{Key: "b", Value: ptr("1")}, {Key: "c"}}}))
	first, err := c.ListTags(c.ctx, &acmpca.ListTagsRequest{CertificateAuthorityArn: arn, MaxResults: ptr(int64(1))})
	c.must(err)
	second, err := c.ListTags(c.ctx, &acmpca.ListTagsRequest{CertificateAuthorityArn: arn, NextToken: first.NextToken})
	c.must(err)
	if diff := cmp.Diff([]acmpca.Tag{{Key: "a", Value: ptr("")}, {Key: "b", Value: ptr("2")}}, append(first.Tags, second.Tags...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var many []acmpca.Tag
	for i := range maxTags {
		many = append(many, acmpca.Tag{Key: "k" + strings.Repeat("x", i)})
	}
	c.refused(c.TagCertificateAuthority(c.ctx, &acmpca.TagCertificateAuthorityRequest{CertificateAuthorityArn: arn, Tags: many}), "TooManyTagsException", "at most 50")
}

func TestPermissions(t *testing.T) {
	c := newCATest(t)
	arn := c.create(createRequest("ROOT", "permitted")) // Terraform permits while it is PENDING_CERTIFICATE
	permit := &acmpca.CreatePermissionRequest{CertificateAuthorityArn: arn, Principal: acmPrincipal, SourceAccount: ptr(testAccount), Actions: []acmpca.ActionType{"ListPermissions", "IssueCertificate", "GetCertificate"}}
	c.must(c.CreatePermission(c.ctx, permit))
	c.refused(c.CreatePermission(c.ctx, permit), "PermissionAlreadyExistsException", arn)
	out, err := c.ListPermissions(c.ctx, &acmpca.ListPermissionsRequest{CertificateAuthorityArn: arn})
	c.must(err)
	want := []acmpca.Permission{{CertificateAuthorityArn: &arn, Principal: ptr(acmPrincipal), SourceAccount: ptr(testAccount), Actions: []acmpca.ActionType{"GetCertificate", "IssueCertificate", "ListPermissions"}, CreatedAt: api.Timestamp{Time: c.clock.Now().UTC()}}}
	if diff := cmp.Diff(want, out.Permissions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.refused(c.CreatePermission(c.ctx, &acmpca.CreatePermissionRequest{CertificateAuthorityArn: arn, Principal: "ec2.amazonaws.com"}), "ValidationException", acmPrincipal)
	c.refused(c.CreatePermission(c.ctx, &acmpca.CreatePermissionRequest{CertificateAuthorityArn: arn, Principal: acmPrincipal, SourceAccount: ptr("999999999999")}), "ValidationException", testAccount)
	drop := &acmpca.DeletePermissionRequest{CertificateAuthorityArn: arn, Principal: acmPrincipal}
	c.must(c.DeletePermission(c.ctx, drop))
	c.refused(c.DeletePermission(c.ctx, drop), "ResourceNotFoundException", acmPrincipal)
}
