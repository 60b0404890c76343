package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/pki"
)

func newACMCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "acm", Short: "Renew many certificates, keep the ARNs of those that lived in AWS, or see those that live there (--acm aws)", Args: noArgs, RunE: showHelp}
	cmd.AddCommand(newACMAdoptCommand(), newACMRenewCommand(), newACMFetchedCommand(), newACMEventCommand())
	return cmd
}

// certificateAdoption is what is to be under an ARN of ACM.
type certificateAdoption struct {
	arn string

	issue     bool
	authority string
	names     []string // the first becomes the common name

	certificate, key, chain string // files
}

func newACMAdoptCommand() *cobra.Command {
	flags, a, domain := &operatorFlags{}, certificateAdoption{}, ""
	cmd := &cobra.Command{
		Use:   "adopt --arn ARN {--issue --domain NAME | --cert FILE --key FILE --chain FILE}",
		Short: "Put a certificate under the ARN that it had in AWS",
		Long: `Puts a certificate of ACM under an ARN that it had in AWS, so that specs which name it
need no change: one that an authority of this server issues and renews from now on
(--issue), or one that you have with its key (--cert).

The ARN must be of this server's account and region. If the same is there already
nothing is changed; if something else is, it is refused.`,
		Example: `  fairlead acm adopt --arn arn:aws:acm:us-east-1:123456789012:certificate/3d8b… --issue --domain api.apps.local
  fairlead acm adopt --arn arn:aws:acm:us-east-1:123456789012:certificate/3d8b… --cert api.pem --key api.key --chain chain.pem`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if domain != "" {
				a.names = append([]string{domain}, a.names...)
			}
			if err := a.check(); err != nil {
				return err
			}
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			adopter := newAdopter(o)
			if a.issue && a.authority == "" {
				if a.authority, err = adopter.onlyAuthority(cmd.Context()); err != nil {
					return err
				}
			}
			raw, adopted, err := adopter.certificate(cmd.Context(), a)
			if err == nil && a.issue {
				adopted.Status, err = adopter.issued(cmd.Context(), a.arn)
			}
			if err != nil {
				return err
			}
			return o.printAdoption(raw, adopted)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&a.arn, "arn", "", "the certificate's ARN in AWS")
	cmd.Flags().BoolVar(&a.issue, "issue", false, "have an authority of this server issue it, now and whenever it is to be renewed")
	cmd.Flags().StringVar(&a.authority, "authority", "", "the ARN of the authority that issues it (default: the only one that is ACTIVE)")
	cmd.Flags().StringVar(&domain, "domain", "", "with --issue, the name that also becomes the common name: the discovery name of the virtual node")
	cmd.Flags().StringArrayVar(&a.names, "name", nil, "with --issue, one more name; may be repeated")
	cmd.Flags().StringVar(&a.certificate, "cert", "", "a file with the certificate, PEM")
	cmd.Flags().StringVar(&a.key, "key", "", "a file with its private key, PEM, not encrypted")
	cmd.Flags().StringVar(&a.chain, "chain", "", "a file with the chain above it, PEM, the root last")
	return cmd
}

func (a certificateAdoption) check() error {
	given := 0
	for _, name := range []string{a.certificate, a.key, a.chain} {
		if name != "" {
			given++
		}
	}
	switch {
	case a.arn == "":
		return usagef("--arn is required")
	case a.issue == (given > 0):
		return usagef("give either --issue and --domain, or --cert, --key and --chain")
	case a.issue && len(a.names) == 0:
		return usagef("--issue needs --domain, the name that clients expect: the discovery name of the virtual node")
	case !a.issue && given < 3:
		return usagef("--cert, --key and --chain: all three are needed")
	case !a.issue && (a.authority != "" || len(a.names) > 0):
		return usagef("--authority, --domain and --name are for --issue")
	}
	return nil
}

// command is what a user would type.
func (a certificateAdoption) command() string {
	words := []string{"fairlead acm adopt --arn", shellWord(a.arn), "--issue", "--authority", shellWord(a.authority)}
	for i, name := range a.names {
		flag := "--name"
		if i == 0 {
			flag = "--domain"
		}
		words = append(words, flag, shellWord(name))
	}
	return strings.Join(words, " ")
}

// shellWord keeps a shell from reading more into a wildcard than there is.
func shellWord(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-", r)
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// authorityAdoption is what is to be under an ARN of Private CA.
type authorityAdoption struct {
	arn                     string
	issue                   bool
	commonName              string
	certificate, key, chain string // files
}

func newCAAdoptCommand(flags *operatorFlags) *cobra.Command {
	a := authorityAdoption{}
	cmd := &cobra.Command{
		Use:   "adopt --arn ARN {--cert FILE | --issue}",
		Short: "Put a certificate authority under the ARN that it had in AWS",
		Long: `Puts an authority under an ARN that it had in AWS, so that specs which trust it need
no change. By its certificate alone it can be trusted, and cannot issue; with --key it
can, and the key may come later: adopt it again with both. --issue makes a new root with
a key of its own, which only those trust who get it from this server.

The ARN must be of this server's region; its account may be any. If the same is there
already nothing is changed; if something else is, it is refused.`,
		Example: `  fairlead ca adopt --arn arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/5f2a… --cert root.pem
  fairlead ca adopt --arn arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/5f2a… --issue`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(); err != nil {
				return err
			}
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			raw, adopted, err := newAdopter(o).authority(cmd.Context(), a)
			if err != nil {
				return err
			}
			return o.printAdoption(raw, adopted)
		},
	}
	cmd.Flags().StringVar(&a.arn, "arn", "", "the authority's ARN in AWS")
	cmd.Flags().StringVar(&a.certificate, "cert", "", "a file with its certificate, PEM")
	cmd.Flags().StringVar(&a.key, "key", "", "a file with its private key, PEM, not encrypted")
	cmd.Flags().StringVar(&a.chain, "chain", "", "of a subordinate, a file with the chain above it, PEM, the root last")
	cmd.Flags().BoolVar(&a.issue, "issue", false, "make a new root authority, valid for ten years")
	cmd.Flags().StringVar(&a.commonName, "common-name", "", "with --issue, the common name of the new root (default: made of the ARN)")
	return cmd
}

func (a authorityAdoption) check() error {
	switch {
	case a.arn == "":
		return usagef("--arn is required")
	case a.issue == (a.certificate != ""):
		return usagef("give either --cert, with --key if you have it, or --issue")
	case a.issue && (a.key != "" || a.chain != ""):
		return usagef("--key and --chain are for --cert")
	case !a.issue && a.commonName != "":
		return usagef("--common-name is for --issue")
	}
	return nil
}

// adopter puts things under the ARNs that they had in AWS.
type adopter struct {
	*operator
	acm *acm.Client
	pca *acmpca.Client
	sts *sts.Client
}

func newAdopter(o *operator) adopter {
	cfg := aws.Config{Region: o.region, Credentials: o.credentials, HTTPClient: o.client, BaseEndpoint: &o.endpoint, RetryMaxAttempts: 9}
	return adopter{o, acm.NewFromConfig(cfg), acmpca.NewFromConfig(cfg), sts.NewFromConfig(cfg)}
}

// certificate adopts a certificate; raw is the answer as it came.
func (a adopter) certificate(ctx context.Context, c certificateAdoption) (raw []byte, adopted pki.Adoption, err error) {
	in := map[string]any{"arn": c.arn}
	if c.issue {
		in["authority"], in["names"] = c.authority, c.names
	} else if err := readMembers(in, map[string]string{"certificate": c.certificate, "privateKey": c.key, "chain": c.chain}); err != nil {
		return nil, pki.Adoption{}, err
	}
	raw, err = a.adopt(ctx, "/fairlead/v1/certificates/adopt", in, &adopted)
	return raw, adopted, err
}

// authority adopts an authority.
func (a adopter) authority(ctx context.Context, c authorityAdoption) (raw []byte, adopted pki.Adoption, err error) {
	in := map[string]any{"arn": c.arn}
	if c.issue {
		in["issue"] = true
		if c.commonName != "" {
			in["commonName"] = c.commonName
		}
	} else if err := readMembers(in, map[string]string{"certificate": c.certificate, "privateKey": c.key, "chain": c.chain}); err != nil {
		return nil, pki.Adoption{}, err
	}
	raw, err = a.adopt(ctx, "/fairlead/v1/authorities/adopt", in, &adopted)
	return raw, adopted, err
}

func (a adopter) adopt(ctx context.Context, path string, in map[string]any, out *pki.Adoption) ([]byte, error) {
	return again(ctx, func() ([]byte, error) { return a.call(ctx, http.MethodPost, path, in, out) })
}

// readMembers reads the files that are named into members of a request.
func readMembers(in map[string]any, files map[string]string) error {
	const most = 3 << 20 // the server takes less
	for member, name := range files {
		if name == "" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(f, most+1))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(text) > most || !bytes.Contains(text, []byte("-----BEGIN ")) {
			return fmt.Errorf("read %s: it is not PEM", name)
		}
		in[member] = string(text)
	}
	return nil
}

func (o *operator) printAdoption(raw []byte, adopted pki.Adoption) error {
	return o.print(raw, func(w io.Writer) { fmt.Fprintln(w, said(adopted)) })
}

func said(adopted pki.Adoption) string {
	verb := "unchanged"
	if adopted.Adopted {
		verb = "adopted"
	}
	return verb + " " + adopted.ARN + " " + adopted.Status
}

// describe reads a certificate; nil: there is none.
func (a adopter) describe(ctx context.Context, arn string) (*acmtypes.CertificateDetail, error) {
	out, err := a.acm.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})
	if isException(err, "ResourceNotFoundException", "InvalidArnException") { // which of the two is said when it is adopted
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", arn, a.plain(err))
	}
	return out.Certificate, nil
}

// issued waits until a certificate is issued, and returns its status.
func (a adopter) issued(ctx context.Context, arn string) (string, error) {
	const longest = 2 * time.Minute
	waiting, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for {
		c, err := a.describe(ctx, arn)
		switch {
		case err != nil:
			return "", err
		case c == nil:
			return "", fmt.Errorf("certificate %s was deleted meanwhile", arn)
		case c.Status == acmtypes.CertificateStatusFailed:
			return "", fmt.Errorf("certificate %s is FAILED, %s: the server's log says why. Adopt it again when that is corrected", arn, c.FailureReason)
		case c.Status != acmtypes.CertificateStatusPendingValidation:
			return string(c.Status), nil
		}
		select {
		case <-waiting.Done():
			return "", fmt.Errorf("certificate %s was not issued within %s: the server's log says why. It goes on trying", arn, longest)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// describeAuthority reads an authority; nil: there is none.
func (a adopter) describeAuthority(ctx context.Context, arn string) (*pcatypes.CertificateAuthority, error) {
	out, err := a.pca.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityInput{CertificateAuthorityArn: &arn})
	// It is another account's, and was not adopted; or it is not there.
	if isException(err, "ResourceNotFoundException", "AccessDeniedException", "InvalidArnException") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", arn, a.plain(err))
	}
	return out.CertificateAuthority, nil
}

// hasKey says whether an authority can issue, if it is ACTIVE: one that is known
// by its certificate alone has no CSR to show.
func (a adopter) hasKey(ctx context.Context, arn string) (bool, error) {
	_, err := a.pca.GetCertificateAuthorityCsr(ctx, &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: &arn})
	if isException(err, "InvalidStateException") {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", arn, a.plain(err))
	}
	return true, nil
}

// onlyAuthority is the one authority that can issue.
func (a adopter) onlyAuthority(ctx context.Context) (string, error) {
	var can []string
	for _, owner := range []pcatypes.ResourceOwner{pcatypes.ResourceOwnerSelf, pcatypes.ResourceOwnerOtherAccounts} {
		pages := acmpca.NewListCertificateAuthoritiesPaginator(a.pca, &acmpca.ListCertificateAuthoritiesInput{ResourceOwner: owner})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return "", fmt.Errorf("list authorities: %w", a.plain(err))
			}
			for _, authority := range page.CertificateAuthorities {
				if authority.Status != pcatypes.CertificateAuthorityStatusActive {
					continue
				}
				if key, err := a.hasKey(ctx, *authority.Arn); err != nil {
					return "", err
				} else if key {
					can = append(can, *authority.Arn)
				}
			}
		}
	}
	switch len(can) {
	case 0:
		return "", errors.New("no authority of this server can issue: make one with fairlead ca adopt --issue, or with aws acm-pca create-certificate-authority")
	case 1:
		return can[0], nil
	}
	return "", usagef("--authority is required, since %d authorities can issue: %s", len(can), strings.Join(can, ", "))
}

// plain is an error of an SDK in our words.
func (a adopter) plain(err error) error {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return &refusal{e.ErrorCode(), e.ErrorMessage(), ""}
	}
	return unreachable(a.endpoint, err)
}

func isException(err error, codes ...string) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(codes, e.ErrorCode())
}
