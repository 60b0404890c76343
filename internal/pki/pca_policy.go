package pki

import (
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
)

// policy is a resource policy as Private CA takes it: exactly one statement that
// lets others read, and one that lets them issue by one template.
type policy struct {
	Version   string      `json:"Version"`
	ID        string      `json:"Id,omitzero"`
	Statement []statement `json:"Statement"`
}

type statement struct {
	Sid       string                       `json:"Sid,omitzero"`
	Effect    string                       `json:"Effect"`
	Principal map[string]oneOrMany         `json:"Principal"`
	Action    oneOrMany                    `json:"Action"`
	Resource  oneOrMany                    `json:"Resource"`
	Condition map[string]map[string]string `json:"Condition,omitzero"`
}

// oneOrMany is a string or a list of strings.
type oneOrMany []string

// UnmarshalJSONFrom reads either form.
func (o *oneOrMany) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '"' {
		var one string
		if err := json.UnmarshalDecode(d, &one); err != nil {
			return err
		}
		*o = oneOrMany{one}
		return nil
	}
	return json.UnmarshalDecode(d, (*[]string)(o))
}

// sharedReads are the actions of the reading statement.
var sharedReads = []string{
	"acm-pca:DescribeCertificateAuthority", "acm-pca:GetCertificate", "acm-pca:GetCertificateAuthorityCertificate",
	"acm-pca:ListPermissions", "acm-pca:ListTags",
}

// sharedTemplates are the templates that may be shared.
var sharedTemplates = []string{
	"EndEntityCertificate", "EndEntityClientAuthCertificate", "EndEntityServerAuthCertificate",
	"BlankEndEntityCertificate_APIPassthrough", "BlankEndEntityCertificate_APICSRPassthrough", "SubordinateCACertificate_PathLen0",
}

var principalPattern = regexp.MustCompile(`^([0-9]{12}|arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:[!-~]{1,512})$`)

// parsePolicy refuses a policy that is not of that shape (facts B.6).
func (p *PrivateCA) parsePolicy(text, arn string) error {
	var doc policy
	if err := json.Unmarshal([]byte(text), &doc, json.RejectUnknownMembers(true)); err != nil {
		return invalidPolicy("it cannot be read: %.200s", err.Error())
	}
	if doc.Version != "2012-10-17" {
		return invalidPolicy("Version must be 2012-10-17")
	}
	if len(doc.Statement) != 2 {
		return invalidPolicy("it must have exactly two statements, one that allows to read (%s), one that allows acm-pca:IssueCertificate by one template; it has %d", strings.Join(sharedReads, ", "), len(doc.Statement))
	}
	issues := 0
	for i := range doc.Statement {
		s := &doc.Statement[i]
		if err := s.checkScope(i, arn); err != nil {
			return err
		}
		issue, err := p.checkActions(s, i)
		if err != nil {
			return err
		}
		if issue {
			issues++
		}
	}
	if issues != 1 {
		return invalidPolicy("one statement must allow to read, and the other acm-pca:IssueCertificate")
	}
	return nil
}

func (s *statement) checkScope(i int, arn string) error {
	if s.Effect != "Allow" {
		return invalidPolicy("Statement[%d].Effect must be Allow", i)
	}
	if len(s.Resource) != 1 || s.Resource[0] != arn {
		return invalidPolicy("Statement[%d].Resource must be the authority, %s", i, arn)
	}
	who := s.Principal["AWS"]
	if len(s.Principal) != 1 || len(who) == 0 || slices.ContainsFunc(who, func(w string) bool { return !principalPattern.MatchString(w) }) {
		return invalidPolicy(`Statement[%d].Principal must be {"AWS": …} with accounts of 12 digits or ARNs of IAM`, i)
	}
	return nil
}

// checkActions says whether the statement is the one that allows to issue.
func (p *PrivateCA) checkActions(s *statement, i int) (issue bool, err error) {
	actions := slices.Sorted(slices.Values(s.Action))
	if !slices.Equal(actions, []string{"acm-pca:IssueCertificate"}) {
		if !slices.Equal(actions, sharedReads) {
			return false, invalidPolicy("Statement[%d].Action must be acm-pca:IssueCertificate alone, or all of %s", i, strings.Join(sharedReads, ", "))
		}
		if len(s.Condition) > 0 {
			return false, invalidPolicy("Statement[%d].Condition: what allows to read has none", i)
		}
		return false, nil
	}
	condition := s.Condition["StringEquals"]
	template := condition["acm-pca:TemplateArn"]
	if len(s.Condition) != 1 || len(condition) != 1 || template == "" {
		return false, invalidPolicy(`Statement[%d].Condition must be {"StringEquals": {"acm-pca:TemplateArn": …}}`, i)
	}
	for _, name := range sharedTemplates {
		if template == "arn:"+awsapi.Partition(p.Region)+":acm-pca:::template/"+name+"/V1" {
			return true, nil
		}
	}
	return false, invalidPolicy("Statement[%d]: the template %.200q cannot be shared: those that can are %s", i, template, strings.Join(sharedTemplates, ", "))
}

func invalidPolicy(format string, args ...any) error {
	return acmpca.NewInvalidPolicyException("Policy: "+format, args...)
}
