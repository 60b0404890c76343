package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

// maxARNs bounds the ARNs that one spec names: each is a condition of the
// transaction that writes it, of which etcd takes 128.
const maxARNs = 40

// maxARNResource bounds the last field of an ARN: AWS's have some 60 characters.
const maxARNResource = 256

// namedARN is an ARN of a certificate or of an authority in a spec.
type namedARN struct {
	path      string
	arn       string
	authority bool
}

// subject is what is named, wherever.
func (n namedARN) subject() namedARN { return namedARN{"", n.arn, n.authority} }

func nodeCertificates(spec *appmesh.VirtualNodeSpec) []namedARN {
	return append(listenerCertificates(nodeListeners(spec)), policyAuthorities(nodePolicies(spec))...)
}

func gatewayCertificates(spec *appmesh.VirtualGatewaySpec) []namedARN {
	return append(listenerCertificates(gatewayListeners(spec)), policyAuthorities(gatewayPolicies(spec))...)
}

func listenerCertificates(listeners []listener) []namedARN {
	var all []namedARN
	for _, l := range listeners {
		if l.tls != nil && l.tls.certificateARN != nil {
			all = append(all, namedARN{path: l.tls.path + ".certificate.acm.certificateArn", arn: *l.tls.certificateARN})
		}
	}
	return all
}

func policyAuthorities(policies []clientTLS) []namedARN {
	var all []namedARN
	for _, c := range policies {
		for i, arn := range c.caARNs {
			path := fmt.Sprintf("%s.validation.trust.acm.certificateAuthorityArns[%d]", c.path, i)
			all = append(all, namedARN{path, arn, true})
		}
	}
	return all
}

// candidate is what the rules on certificates and authorities look at.
type candidate struct {
	fields         []string // of the ARN, six; its account is the fifth
	region, owner  string   // this server's; of the mesh endpoint
	now            time.Time
	certificate    *store.Certificate // nil: there is none
	authority      *store.Authority
	wantedResource string // how the ARN's last field begins
	wantedService  string
}

// certificateRule is one check of a certificate or authority that a spec names,
// within the transaction that writes the spec.
type certificateRule struct {
	id, source, says string
	// refuse says what is wrong and what to do, behind the ARN; empty: nothing.
	refuse func(s *candidate) string
}

// Of several rules that refuse the first is told.
var certificateRules = []certificateRule{
	{"certificate-arn", "C.4", "a listener's certificateArn is that of a certificate of ACM in this server's region", refuseARN},
	{"certificate-account", "B.12 17", "a listener's certificate is of the account that the virtual node or gateway is of", func(s *candidate) string {
		if s.fields[4] == s.owner {
			return ""
		}
		return "is of account " + s.fields[4] + ": a listener's certificate must be of the account of its virtual node or gateway, which is " + s.owner
	}},
	{"certificate", "B.12 17", "a listener's certificate exists", func(s *candidate) string {
		if s.certificate != nil {
			return ""
		}
		return "does not exist: name one that acm list-certificates shows, or make it with acm request-certificate or import-certificate"
	}},
	{"certificate-type", "B.12 17", "a listener's certificate is private or imported", func(s *candidate) string {
		switch acm.CertificateType(s.certificate.Type) {
		case acm.CertificateTypePrivate, acm.CertificateTypeImported:
			return ""
		}
		return "is a public certificate (" + s.certificate.Type + "), whose key nobody can have: request one of a private authority, or import one"
	}},
	{"certificate-issued", "B.12 17", "a listener's certificate is issued, neither expired nor revoked", refuseStatus},
	{"certificate-root", "C.2", "the chain of an imported certificate includes its root: clients without a policy validate against it", func(s *candidate) string {
		if s.certificate.Roots != "" {
			return ""
		}
		return "has a chain without a root, so that clients could not validate it: import it again with a CertificateChain up to the root, the root included"
	}},
}

var authorityRules = []certificateRule{
	{"authority-arn", "C.4", "a client policy's certificateAuthorityArns are those of private certificate authorities in this server's region", refuseARN},
	{"authority-account", "C.4", "an authority in a client policy is of the account that the virtual node or gateway is of, or shared with it by its resource policy", func(s *candidate) string {
		if s.fields[4] == s.owner || s.authority != nil && slices.Contains(s.authority.Readers, s.owner) {
			return ""
		}
		return "is of account " + s.fields[4] + ", which does not share it with account " + s.owner + ": its owner can, with acm-pca put-policy"
	}},
	{"authority", "C.4", "an authority in a client policy exists", func(s *candidate) string {
		if s.authority != nil {
			return ""
		}
		return "does not exist: name one that acm-pca list-certificate-authorities shows, or make it with acm-pca create-certificate-authority"
	}},
	{"authority-root", "C.4", "an authority in a client policy is a root", func(s *candidate) string {
		if s.authority.Root {
			return ""
		}
		return "is a subordinate authority: name the root above it, and certificates of both are trusted"
	}},
	{"authority-active", "C.4", "an authority in a client policy is ACTIVE", func(s *candidate) string {
		status := acmpca.CertificateAuthorityStatus(s.authority.Status)
		switch {
		case status == acmpca.CertificateAuthorityStatusActive && s.now.After(s.authority.NotAfter):
			return "is EXPIRED since " + s.authority.NotAfter.UTC().Format(time.RFC3339) + ": import a new certificate for it, or name another root"
		case status == acmpca.CertificateAuthorityStatusActive:
			return ""
		case status == acmpca.CertificateAuthorityStatusPendingCertificate:
			return "is PENDING_CERTIFICATE: a root is trusted once its certificate is imported, with acm-pca import-certificate-authority-certificate"
		case status == acmpca.CertificateAuthorityStatusDisabled:
			return "is DISABLED: enable it with acm-pca update-certificate-authority --status ACTIVE, or name another root"
		case status == acmpca.CertificateAuthorityStatusDeleted:
			return "is DELETED: restore it with acm-pca restore-certificate-authority, or name another root"
		}
		return "is " + s.authority.Status + ", and must be ACTIVE"
	}},
}

// arnCount is the rule on how many are named.
var arnCount = certificateRule{id: "arn-count", source: "docs/deviations.md", says: fmt.Sprintf("a spec names at most %d certificates and authorities", maxARNs)}

func refuseARN(s *candidate) string {
	if len(s.fields) != 6 || s.fields[0] != "arn" || s.fields[2] != s.wantedService || !strings.HasPrefix(s.fields[5], s.wantedResource+"/") || len(s.fields[5]) > maxARNResource {
		return "is not of the form arn:" + awsapi.Partition(s.region) + ":" + s.wantedService + ":" + s.region + ":ACCOUNT:" + s.wantedResource + "/ID"
	}
	if s.fields[1] != awsapi.Partition(s.region) || s.fields[3] != s.region {
		return "is of region " + s.fields[3] + ", and this server's is " + s.region + ": a mesh takes those of its own region only"
	}
	return ""
}

func refuseStatus(s *candidate) string {
	c := s.certificate
	switch acm.CertificateStatus(c.Status) {
	case acm.CertificateStatusIssued:
		if s.now.After(c.NotAfter) {
			return "is EXPIRED since " + c.NotAfter.UTC().Format(time.RFC3339) + ": renew it, import its successor under the same ARN, or name another"
		}
		return ""
	case acm.CertificateStatusPendingValidation:
		return "is PENDING_VALIDATION: it is not issued yet. Try again when acm describe-certificate says ISSUED"
	case acm.CertificateStatusFailed:
		return "is FAILED with " + c.Failure + ": it was never issued. Delete it and request another"
	case acm.CertificateStatusRevoked:
		return "is REVOKED: clients refuse it. Name another"
	}
	return "is " + c.Status + ", and must be ISSUED"
}

// fetched has what a spec names brought into the store, if it lives elsewhere. It
// leaves out what the rules refuse by its ARN alone.
func (k *kind[S]) fetched(ctx context.Context, s *Service, spec *S, owner string) error {
	if s.Fetch == nil || k.certificates == nil {
		return nil
	}
	named := k.certificates(spec)
	var arns []string
	for _, n := range named {
		about := candidateOf(s, owner, n)
		if refuseARN(about) == "" && (n.authority || about.fields[4] == owner) && !slices.Contains(arns, n.arn) {
			arns = append(arns, n.arn)
		}
	}
	if len(arns) == 0 || len(arns) > maxARNs {
		return nil
	}
	refused, err := s.Fetch(ctx, arns)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return appmesh.NewServiceUnavailableException("The certificates and authorities that the spec names could not be fetched from AWS in time; that goes on. Try again.")
	}
	if err != nil {
		return s.failure(ctx, err)
	}
	var f faults
	for _, n := range named {
		if why := refused[n.arn]; why != "" {
			f.add(n.path, "%.300s cannot be had from AWS: %s", n.arn, why)
		}
	}
	return f.err()
}

// certified checks the certificates and authorities of a spec, and makes that
// they stay as they are a condition. Those that before, the spec until now, named
// as well are not looked at again: they are there as long as a spec names them, and
// an edit of something else is not to fail because one has ended since.
func (s *Service) certified(tx *store.Tx, owner string, spec, before []namedARN) error {
	var f faults
	seen := map[namedARN]bool{}
	for _, n := range spec {
		if seen[n.subject()] = true; len(seen) > maxARNs {
			f.add(n.path, "the spec names more than %d certificates and authorities", maxARNs)
			return f.err()
		}
	}
	for _, n := range before {
		delete(seen, n.subject())
	}
	for _, n := range spec {
		if !seen[n.subject()] {
			continue
		}
		rule, why, err := s.refusal(tx, owner, n)
		if err != nil {
			return err
		}
		noun := "certificate"
		if n.authority {
			noun = "certificate authority"
		}
		if rule == "certificate" || rule == "authority" {
			return appmesh.NewNotFoundException("%s: the %s %.300s %s", n.path, noun, n.arn, why)
		}
		if why != "" {
			f.add(n.path, "the %s %.300s %s", noun, n.arn, why)
		}
	}
	return f.err()
}

func candidateOf(s *Service, owner string, n namedARN) *candidate {
	c := &candidate{fields: strings.SplitN(n.arn, ":", 6), region: s.Region, owner: owner, now: s.now(), wantedService: "acm", wantedResource: "certificate"}
	if n.authority {
		c.wantedService, c.wantedResource = "acm-pca", "certificate-authority"
	}
	return c
}

// refusal is the first rule that refuses an ARN, and why.
func (s *Service) refusal(tx *store.Tx, owner string, n namedARN) (rule, why string, err error) {
	about, rules := candidateOf(s, owner, n), certificateRules
	if n.authority {
		rules = authorityRules
	}
	if why := refuseARN(about); why != "" { // before anything is read under it
		return rules[0].id, why, nil
	}
	if n.authority {
		about.authority, err = store.GetAuthority(tx, n.arn)
	} else {
		about.certificate, err = store.GetCertificate(tx, n.arn)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", "", err
	}
	for _, r := range rules[1:] {
		if why := r.refuse(about); why != "" {
			return r.id, why, nil
		}
	}
	return "", "", nil
}
