package kek

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// kmsTimeout bounds one call of AWS KMS, tries again included.
const kmsTimeout = 20 * time.Second

// KMS is a symmetric key of AWS KMS, which never leaves it. Region, endpoint and
// credentials are those of the AWS environment; an ARN names its own region.
type KMS struct {
	KeyID string // id, ARN or alias/NAME
}

// String implements Key.
func (k KMS) String() string { return providerKMS + ":" + k.KeyID }

// Wrap implements Key: kms:Encrypt.
func (k KMS) Wrap(ctx context.Context, root []byte, lineage string) (Wrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	client, err := k.client(ctx)
	if err != nil {
		return Wrapped{}, err
	}
	out, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.KeyID, Plaintext: root, EncryptionContext: encryptionContext(lineage)})
	if err != nil {
		return Wrapped{}, fmt.Errorf("encrypt with %s: %w", k, err)
	}
	return Wrapped{Provider: providerKMS, Key: aws.ToString(out.KeyId), Blob: out.CiphertextBlob}, nil
}

// Unwrap implements Key: kms:Decrypt.
func (k KMS) Unwrap(ctx context.Context, w Wrapped, lineage string) ([]byte, error) {
	if err := w.of(providerKMS); err != nil {
		return nil, err
	}
	if id := keyID(k.KeyID); id != "" && id != keyID(w.Key) {
		return nil, fmt.Errorf("the root key is encrypted with %s, not with %s: %w", w.Key, k, ErrWrong)
	}
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	client, err := k.client(ctx)
	if err != nil {
		return nil, err
	}
	out, err := client.Decrypt(ctx, &kms.DecryptInput{KeyId: &k.KeyID, CiphertextBlob: w.Blob, EncryptionContext: encryptionContext(lineage)})
	if err != nil {
		return nil, fmt.Errorf("decrypt with %s what %s has encrypted: %w", k, w.Key, kmsError(err))
	}
	return checkRoot(out.Plaintext)
}

// keyID is the id in the ARN of a key, or the id itself; it is the same in all
// regions that a key is in. Of an alias it is not known.
func keyID(key string) string {
	if strings.HasPrefix(key, "alias/") || strings.Contains(key, ":alias/") {
		return ""
	}
	return key[strings.LastIndexByte(key, '/')+1:]
}

// encryptionContext is authenticated by KMS, and in the log of its use.
func encryptionContext(lineage string) map[string]string {
	return map[string]string{"fairlead:lineage": lineage}
}

func (k KMS) client(ctx context.Context) (*kms.Client, error) {
	var options []func(*config.LoadOptions) error
	if part := strings.Split(k.KeyID, ":"); len(part) > 3 && part[0] == "arn" {
		options = append(options, config.WithRegion(part[3]))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("use %s: no region: set AWS_REGION, or give the key's ARN", k)
	}
	return kms.NewFromConfig(cfg), nil
}

// kmsError tells what KMS says of another key's ciphertext from what it says of
// a key that cannot be used now.
func kmsError(err error) error {
	var incorrect *types.IncorrectKeyException
	var invalid *types.InvalidCiphertextException
	var unknown *types.NotFoundException
	if errors.As(err, &incorrect) || errors.As(err, &invalid) || errors.As(err, &unknown) {
		return fmt.Errorf("%w: %w", ErrWrong, err)
	}
	return err
}
