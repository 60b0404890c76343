package pki

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/api/acmpca"
)

const sharing = `{"Version": "2012-10-17", "Statement": [
 {"Sid": "read", "Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Resource": "ARN",
  "Action": ["acm-pca:DescribeCertificateAuthority", "acm-pca:GetCertificate", "acm-pca:GetCertificateAuthorityCertificate", "acm-pca:ListPermissions", "acm-pca:ListTags"]},
 {"Sid": "issue", "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::111122223333:root"]}, "Resource": ["ARN"], "Action": ["acm-pca:IssueCertificate"],
  "Condition": {"StringEquals": {"acm-pca:TemplateArn": "arn:aws:acm-pca:::template/EndEntityCertificate/V1"}}}]}`

func TestPolicy(t *testing.T) {
	c := newCATest(t)
	arn := c.create(createRequest("ROOT", "shared"))
	put := func(policy string) error {
		return c.PutPolicy(c.ctx, &acmpca.PutPolicyRequest{ResourceArn: arn, Policy: policy})
	}
	good := strings.ReplaceAll(sharing, "ARN\"", arn+"\"")
	get := &acmpca.GetPolicyRequest{ResourceArn: arn}
	_, err := c.GetPolicy(c.ctx, get)
	c.refused(err, "ResourceNotFoundException", "no policy")
	c.must(c.DeletePolicy(c.ctx, &acmpca.DeletePolicyRequest{ResourceArn: arn}))
	for _, x := range []struct{ old, now, message string }{
		{`"2012-10-17"`, `"2008-10-17"`, "Version"},
		{`"Allow"`, `"Deny"`, "Effect"},
		{arn, arn + "x", "Resource must be the authority"},
		{`"111122223333"`, `"*"`, "Principal"},
		{`"AWS": "111122223333"`, `"Service": "acm.amazonaws.com"`, "Principal"},
		{`"acm-pca:ListTags"`, `"acm-pca:RevokeCertificate"`, "Action"},
		{`, "acm-pca:ListTags"`, ``, "Action"},
		{`"StringEquals"`, `"StringLike"`, "Condition"},
		{`EndEntityCertificate/V1`, `SubordinateCACertificate_PathLen3/V1`, "cannot be shared"},
		{`"Sid": "read"`, `"NotAction": "x"`, "cannot be read"},
		{`"Sid": "read"`, `"Sid": "a", "Sid": "b"`, "cannot be read"},
		{`"Statement": [`, `"Statement": [1, `, "cannot be read"},
		{"]}", "]} x", "cannot be read"},
	} {
		changed := strings.Replace(good, x.old, x.now, 1)
		if changed == good {
			t.Errorf("%s is not in the policy", x.old)
		}
		if x.old == "]}" {
			changed = good + " x"
		}
		c.refused(put(changed), "InvalidPolicyException", x.message)
	}
	c.refused(put(`{"Version": "2012-10-17", "Statement": []}`), "InvalidPolicyException", "exactly two statements")
	c.must(put(good))
	out, err := c.GetPolicy(c.ctx, get)
	c.must(err)
	if *out.Policy != good {
		t.Errorf("the policy came back as %s", *out.Policy)
	}
	// Kept, and not yet heeded: nobody else may do anything.
	_, err = c.DescribeCertificateAuthority(callerOf(c.ctx, "111122223333"), &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: arn})
	c.refused(err, "AccessDeniedException", "no resource-based policy allows the acm-pca:DescribeCertificateAuthority action")
}

// FuzzPolicy: whatever a policy says, it is of the shape or refused for it.
func FuzzPolicy(f *testing.F) {
	p := &PrivateCA{Config: Config{Region: testRegion}}
	f.Add(sharing)
	f.Add(`{"Version": "2012-10-17", "Statement": [{"Principal": {"AWS": [null]}, "Action": 1}]}`)
	f.Fuzz(func(t *testing.T, policy string) {
		if code := exception(p.parsePolicy(policy, "ARN")); code != "" && code != "InvalidPolicyException" {
			t.Errorf("%q: %s", policy, code)
		}
	})
}
