package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/uuid"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/importer"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// adoptionPlan is what it takes for the certificates and authorities that specs
// name to be there.
type adoptionPlan struct {
	authorities  []authorityAdoption
	certificates []certificateAdoption
	waiting      []string // ARNs of certificates that are there, and not issued yet
	warnings     []string
	problems     []string // nothing is done while there are any
}

// planner makes an adoptionPlan.
type planner struct {
	adopter
	plan    adoptionPlan
	account string          // the server's
	given   string          // the authority that is to issue, if the user says so
	keyed   map[string]bool // authorities that are there: whether they can issue
}

// planAdoption looks at what is there and says what is missing.
func planAdoption(ctx context.Context, a adopter, result *importer.Result, authority string) (*adoptionPlan, error) {
	identity, err := a.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, fmt.Errorf("ask the server for its account: %w", a.plain(err))
	}
	p := &planner{adopter: a, account: *identity.Account, given: authority, keyed: map[string]bool{}}
	for _, need := range result.Authorities {
		if err := p.lookAtAuthority(ctx, need.Name); err != nil {
			return nil, err
		}
	}
	if authority != "" {
		if _, known := p.keyed[authority]; !known && !p.makes(authority) {
			if err := p.lookAtIssuer(ctx, authority); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range result.Issuable {
		if err := p.lookAtCertificate(ctx, c); err != nil {
			return nil, err
		}
	}
	return &p.plan, nil
}

func (p *planner) problem(format string, args ...any) {
	p.plan.problems = append(p.plan.problems, fmt.Sprintf(format, args...))
}

// makes says whether an authority is among those that are to be made.
func (p *planner) makes(arn string) bool {
	return slices.ContainsFunc(p.plan.authorities, func(a authorityAdoption) bool { return a.arn == arn })
}

// The ARNs that can be adopted: such are safe in a command line, too.
var (
	oldCertificate = regexp.MustCompile(`^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	oldAuthority   = regexp.MustCompile(`^arn:aws[a-z-]*:acm-pca:[a-z0-9-]+:[0-9]{12}:certificate-authority/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// place finds what is wrong with an ARN.
func (p *planner) place(arn string, form *regexp.Regexp) bool {
	fields := strings.Split(arn, ":")
	switch {
	case !form.MatchString(arn):
		p.problem("%.200q cannot be adopted: an ARN of ACM ends in certificate/UUID, one of Private CA in certificate-authority/UUID", arn)
	case fields[3] != p.region:
		p.problem("%s is of the region %s, and this server's is %s: a mesh uses what is of its own region. Import to a server that runs with --region %[2]s", arn, fields[3], p.region)
	case form == oldCertificate && fields[4] != p.account:
		p.problem("%s is of the account %s, and this server's is %s: only mesh endpoints of its own account may use a certificate. To keep the ARNs make a server with --account-id %[2]s and a new --data-dir", arn, fields[4], p.account)
	default:
		return true
	}
	return false
}

func (p *planner) lookAtAuthority(ctx context.Context, arn string) error {
	if !p.place(arn, oldAuthority) {
		return nil
	}
	is, err := p.describeAuthority(ctx, arn)
	switch {
	case err != nil:
		return err
	case is == nil:
		p.plan.authorities = append(p.plan.authorities, authorityAdoption{arn: arn, issue: true})
		return nil
	case is.Status != pcatypes.CertificateAuthorityStatusActive:
		p.problem("the authority %s is %s; nobody can trust it until it is ACTIVE", arn, is.Status)
		return nil
	}
	p.keyed[arn], err = p.hasKey(ctx, arn)
	return err
}

// lookAtIssuer wants the authority that the user has chosen to be able to issue.
func (p *planner) lookAtIssuer(ctx context.Context, arn string) error {
	is, err := p.describeAuthority(ctx, arn)
	if err != nil {
		return err
	}
	if is == nil || is.Status != pcatypes.CertificateAuthorityStatusActive {
		return usagef("--authority: %s is no ACTIVE authority of this server", arn)
	}
	p.keyed[arn], err = p.hasKey(ctx, arn)
	return err
}

func (p *planner) lookAtCertificate(ctx context.Context, c importer.Issuable) error {
	if !p.place(c.ARN, oldCertificate) {
		return nil
	}
	is, err := p.describe(ctx, c.ARN)
	switch {
	case err != nil:
		return err
	case is == nil || is.Status == acmtypes.CertificateStatusFailed && is.Serial == nil:
		return p.issue(ctx, c)
	case is.Status == acmtypes.CertificateStatusPendingValidation:
		p.plan.waiting = append(p.plan.waiting, c.ARN)
	case is.Status != acmtypes.CertificateStatusIssued:
		p.problem("the certificate %s is %s: specs that name it are refused. Delete it with aws acm delete-certificate, or import its successor under its ARN", c.ARN, is.Status)
	}
	for _, name := range c.Names {
		if !slices.ContainsFunc(is.SubjectAlternativeNames, func(san string) bool { return tlspolicy.Matches(name, san) }) {
			p.plan.warnings = append(p.plan.warnings, fmt.Sprintf("the certificate %s has not the name %s, which clients expect", c.ARN, name))
		}
	}
	return nil
}

// mostNames is how many names a certificate of ACM has at most, longestCommonName
// how long the first of them may be: ACM's own limits.
const mostNames, longestCommonName = 100, 64

// issue plans a certificate, if it can be known what it must be.
func (p *planner) issue(ctx context.Context, c importer.Issuable) error {
	names := slices.Clone(c.Names)
	first := slices.IndexFunc(names, func(name string) bool { return len(name) <= longestCommonName })
	bad := slices.IndexFunc(names, func(name string) bool { return ca.CheckDNSName(name) != nil })
	own := " Give the one that you have: fairlead acm adopt --arn " + c.ARN + " --cert FILE --key FILE --chain FILE"
	switch {
	case c.Trouble != "":
		p.problem("no certificate that is issued here does for %s: %s.%s", c.ARN, c.Trouble, own)
	case len(names) == 0:
		p.problem("the resources do not say which names %s has: issue it with them, fairlead acm adopt --arn %[1]s --issue --domain NAME.%s", c.ARN, own)
	case len(names) > mostNames:
		p.problem("%[1]s would need %[2]d names, and a certificate has at most %[3]d: issue it with wildcards, fairlead acm adopt --arn %[1]s --issue --domain '*.NAME'.%[4]s", c.ARN, len(names), mostNames, own)
	case bad >= 0:
		p.problem("%s would need the name %q, which no certificate can have.%s", c.ARN, names[bad], own)
	case first < 0:
		p.problem("%s would need a name of at most %d characters, to be its common name.%s", c.ARN, longestCommonName, own)
	default:
		names[0], names[first] = names[first], names[0]
		authority, err := p.issuer(ctx, c)
		if err != nil {
			return err
		}
		if authority == "" {
			p.problem("%s must be issued below %s, of which this server has the certificate and not the key.%s", c.ARN, strings.Join(c.Authorities, " or "), own)
		} else {
			p.plan.certificates = append(p.plan.certificates, certificateAdoption{arn: c.ARN, issue: true, authority: authority, names: names})
		}
	}
	return nil
}

// issuer is who issues a certificate so that all clients accept it: whom the
// user says, one that the clients trust, or one that others of the mesh trust.
// If nobody trusts any by its ARN, it is a root that is made for all of them.
func (p *planner) issuer(ctx context.Context, c importer.Issuable) (string, error) {
	if p.given != "" {
		return p.given, nil
	}
	trusted := c.Authorities
	if trusted == nil {
		for arn := range p.keyed {
			trusted = append(trusted, arn)
		}
		for _, a := range p.plan.authorities {
			trusted = append(trusted, a.arn)
		}
		slices.Sort(trusted)
	}
	for _, arn := range trusted {
		if p.keyed[arn] {
			return arn, nil
		}
	}
	for _, arn := range trusted {
		if p.makes(arn) {
			return arn, nil
		}
	}
	if c.Authorities != nil {
		return "", nil
	}
	return p.ownRoot(ctx, c.ARN)
}

// ownRoot plans the root of certificates whose clients trust whatever they chain
// to. Its id follows from account and region, so that every import finds it.
func (p *planner) ownRoot(ctx context.Context, certificate string) (string, error) {
	fields := strings.Split(certificate, ":")
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("fairlead root of imported certificates "+fields[3]+" "+fields[4]))
	arn := strings.Join([]string{"arn", fields[1], "acm-pca", fields[3], fields[4], "certificate-authority/" + id.String()}, ":")
	if err := p.lookAtAuthority(ctx, arn); err != nil {
		return "", err
	}
	if p.makes(arn) {
		p.plan.authorities[len(p.plan.authorities)-1].commonName = "Root CA of imported certificates"
	}
	return arn, nil
}

// commands are what a user would type to do the same.
func (p *adoptionPlan) commands() []string {
	var all []string
	for _, a := range p.authorities {
		command := "fairlead ca adopt --arn " + a.arn + " --issue"
		if a.commonName != "" {
			command += " --common-name " + shellWord(a.commonName)
		}
		all = append(all, command)
	}
	for _, c := range p.certificates {
		all = append(all, c.command())
	}
	return all
}

func (p *adoptionPlan) empty() bool { return len(p.authorities) == 0 && len(p.certificates) == 0 }

// write says what is planned.
func (p *adoptionPlan) write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\nTo be adopted:")
	if p.empty() {
		b.WriteString(" nothing, the server has all certificates and root CAs")
	}
	for _, a := range p.authorities {
		b.WriteString("\n  a NEW root CA under " + a.arn)
	}
	for _, c := range p.certificates {
		b.WriteString("\n  a certificate under " + c.arn + "\n    for " + strings.Join(c.names, ", ") + "\n    issued by " + c.authority)
	}
	b.WriteByte('\n')
	for _, warning := range p.warnings {
		b.WriteString("warning: " + importer.OneLine(warning) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// blocked is why nothing is done.
func (p *adoptionPlan) blocked() error {
	if len(p.problems) == 0 {
		return nil
	}
	lines := "nothing was adopted, since not all can be:"
	for _, problem := range p.problems {
		lines += "\n  " + importer.OneLine(problem)
	}
	return errors.New(lines)
}

// errDeclined is the end of an import that the user does not want.
var errDeclined = errors.New("nothing was adopted, and nothing was changed")

// confirm asks whether to do what is planned, at the terminal: standard input
// may be what is imported.
func (p *adoptionPlan) confirm() error {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("there is no terminal to ask whether to make new authorities and certificates in the stead of AWS's: say so with --yes, or adopt those that you have.\nThese commands would do the same one by one:\n  %s\nThose for what you have are\n  fairlead ca adopt --arn ARN --cert FILE\n  fairlead acm adopt --arn ARN --cert FILE --key FILE --chain FILE", strings.Join(p.commands(), "\n  "))
	}
	defer terminal.Close()
	question := "\nMake them? What AWS issued is not trusted by these, nor these by it. To keep what you have,\nanswer no and use fairlead ca adopt and fairlead acm adopt with --cert. [y/N] "
	if _, err := io.WriteString(terminal, question); err != nil {
		return fmt.Errorf("ask at the terminal: %w", err)
	}
	answer, err := bufio.NewReader(terminal).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("ask at the terminal: %w", err)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return errDeclined
	}
	return nil
}

// do adopts what is planned, authorities first, and waits until all certificates
// are issued.
func (p *adoptionPlan) do(ctx context.Context, a adopter, w io.Writer) error {
	for _, authority := range p.authorities {
		_, adopted, err := a.authority(ctx, authority)
		if err != nil {
			return fmt.Errorf("adopt %s: %w", authority.arn, err)
		}
		fmt.Fprintln(w, said(adopted)) //nolint:errcheck // the report went there already
	}
	waiting := p.waiting
	for _, certificate := range p.certificates {
		_, adopted, err := a.certificate(ctx, certificate)
		if err != nil {
			return fmt.Errorf("adopt %s: %w", certificate.arn, err)
		}
		fmt.Fprintln(w, said(adopted)) //nolint:errcheck // the report went there already
		waiting = append(waiting, certificate.arn)
	}
	for _, arn := range waiting {
		status, err := a.issued(ctx, arn)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, "issued", arn, status) //nolint:errcheck // the report went there already
	}
	return nil
}
