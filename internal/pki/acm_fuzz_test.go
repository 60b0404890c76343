package pki

import (
	"strings"
	"testing"
)

// FuzzCertificateARN: an ARN names one place, or none.
func FuzzCertificateARN(f *testing.F) {
	for _, arn := range []string{
		"arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555", "arn:aws:acm:::certificate/", "arn:aws:acm:eu-west-1:1:certificate/a/b", "::::::", "",
	} {
		f.Add(arn)
	}
	f.Fuzz(func(t *testing.T, arn string) {
		at, err := acmPlace(arn)
		if err != nil {
			if exception(err) != "InvalidArnException" || len(err.Error()) > 4096 {
				t.Errorf("%q: %v", arn, err)
			}
			return
		}
		if len(at) != 3 || at[0] != kindCertificate || at[1] == "" || at[2] == "" || !strings.HasSuffix(arn, ":"+at[1]+":certificate/"+at[2]) {
			t.Errorf("%q names %q", arn, at)
		}
	})
}
