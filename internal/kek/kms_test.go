package kek_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/fairlead/fairlead/internal/kek"
	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// newKMS starts an AWS KMS that is not ours, in the environment of this test, and
// returns the ARNs of two keys in it.
func newKMS(t *testing.T) (client *kms.Client, right, other string) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_KMS": meshtest.StartMoto(t), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
	} {
		t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client = kms.NewFromConfig(cfg)
	var arns []string
	for range 2 {
		made, err := client.CreateKey(t.Context(), &kms.CreateKeyInput{})
		if err != nil {
			t.Fatal(err)
		}
		arns = append(arns, aws.ToString(made.KeyMetadata.Arn))
	}
	return client, arns[0], arns[1]
}

func TestKMS(t *testing.T) {
	client, right, other := newKMS(t)
	kek.Conforms(t, kek.KMS{KeyID: right}, kek.KMS{KeyID: other})

	// An alias is as good as the ARN, and is wrong once it leads to another key.
	if _, err := client.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/fairlead"), TargetKeyId: &right}); err != nil {
		t.Fatal(err)
	}
	alias := kek.KMS{KeyID: "alias/fairlead"}
	wrapped, err := alias.Wrap(t.Context(), make([]byte, kek.RootSize), "lineage")
	if err != nil {
		t.Fatal(err)
	}
	if wrapped.Key != right {
		t.Errorf("the store remembers the key as %q, not %q", wrapped.Key, right)
	}
	if _, err := (kek.KMS{KeyID: right}).Unwrap(t.Context(), wrapped, "lineage"); err != nil {
		t.Errorf("by its ARN: %v", err)
	}
	if _, err := (kek.KMS{KeyID: "alias/unknown"}).Unwrap(t.Context(), wrapped, "lineage"); !errors.Is(err, kek.ErrWrong) {
		t.Errorf("by an alias that is not there: %v", err)
	}

	// A KMS that does not answer says nothing of the key.
	t.Setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	if _, err := alias.Unwrap(t.Context(), wrapped, "lineage"); err == nil || errors.Is(err, kek.ErrWrong) {
		t.Errorf("nobody answers: %v", err)
	}
	t.Setenv("AWS_REGION", "")
	if _, err := alias.Wrap(t.Context(), nil, "lineage"); err == nil || !strings.Contains(err.Error(), "set AWS_REGION") {
		t.Errorf("without a region: %v", err)
	}
}
