package awsapi

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/iam/policy"
)

// authorizer refuses a call that its principal may not make whatever its input
// is, and returns what refuses by the input. For the root of the server's account
// that is nothing.
func (m *Mux) authorizer(r *http.Request, found *route, p iam.Principal) (func(context.Context, any) error, error) {
	settled, err := iam.Admit(p, found.service, found.action, m.cfg.Account)
	if err != nil || settled {
		return func(context.Context, any) error { return nil }, err
	}
	return func(ctx context.Context, input any) error {
		a := asked{mux: m, service: found.service, principal: p, input: reflect.ValueOf(input), values: requestValues(r, m.cfg)}
		return a.authorize(ctx, found.action)
	}, nil
}

// requestValues are the condition keys that do not depend on the input.
func requestValues(r *http.Request, c Config) policy.Values {
	now := c.now().UTC()
	v := policy.Values{
		"aws:securetransport": {strconv.FormatBool(r.TLS != nil)}, "aws:requestedregion": {c.Region},
		"aws:currenttime": {now.Format(time.RFC3339)}, "aws:epochtime": {strconv.FormatInt(now.Unix(), 10)},
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		v["aws:sourceip"] = []string{host}
	}
	if agent := r.UserAgent(); agent != "" {
		v["aws:useragent"] = []string{agent}
	}
	return v
}

// asked is a call whose input is read: a structure of a service model, the form
// of the query protocol, or nothing.
type asked struct {
	mux       *Mux
	service   string
	principal iam.Principal
	input     reflect.Value
	values    policy.Values
}

func (a asked) authorize(ctx context.Context, action string) error {
	template, known := iam.ResourceOf(a.service, action)
	if !known {
		return iam.Refuse(iam.ErrDenied, "User: %s is not authorized to perform: %s:%s because only the root of the account is", a.principal.ARN(), a.service, action)
	}
	resource := a.resource(template)
	if a.service == OperatorService {
		// Proxies and principals of all accounts are the server's own account's.
		return a.allowed(ctx, a.service, action, resource, cmp.Or(a.mux.cfg.Account, "none"))
	}
	tagged := a.addInput()
	if err := a.allowed(ctx, a.service, action, resource, accountOf(resource)); err != nil {
		return err
	}
	if tag := iam.TagAction(a.service); tagged && tag != "" && tag != action && !strings.Contains(action, "Tag") {
		if err := a.allowed(ctx, a.service, tag, resource, accountOf(resource)); err != nil {
			return err
		}
	}
	if update := a.tagUpdate(action, resource); update != "" {
		if err := a.allowed(ctx, a.service, update, resource, accountOf(resource)); err != nil {
			return err
		}
	}
	for _, r := range a.references() {
		if err := a.allowed(ctx, r.service, r.action, r.arn, accountOf(r.arn)); err != nil {
			return err
		}
	}
	return nil
}

func (a asked) allowed(ctx context.Context, service, action, resource, account string) error {
	values := policy.Values{}
	for key, value := range a.values {
		values[key] = value
	}
	if a.mux.cfg.Tags != nil && strings.HasPrefix(resource, "arn:") && account == a.principal.Account && service != "sts" {
		tags, err := a.mux.cfg.Tags(ctx, resource)
		if err != nil {
			return fmt.Errorf("read tags for a decision: %w", err)
		}
		addTags(values, "aws:resourcetag/", tags)
		if service == "appmesh" { // the guide of App Mesh writes it so, too
			addTags(values, "appmesh:resourcetag/", tags)
		}
	}
	return iam.Authorize(a.mux.cfg.Keys, a.principal, iam.Call{Action: service + ":" + action, Resource: resource, Account: account, Values: values})
}

// addTags gives keys that differ in case both values, and so none that a
// condition could rely on.
func addTags(values policy.Values, prefix string, tags map[string]string) {
	for key, value := range tags {
		key = prefix + strings.ToLower(key)
		values[key] = append(values[key], value)
	}
}

// resource fills in a template of iam.ResourceOf.
func (a asked) resource(template string) string {
	var out strings.Builder
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		out.WriteString(text)
		if !found {
			break
		}
		var name string
		name, rest, _ = strings.Cut(after, "}")
		out.WriteString(a.text(name))
	}
	path := out.String()
	if strings.HasPrefix(template, "{") || template == "*" {
		if path == "" && a.service == "acm" { // ImportCertificate of a new one
			return a.arn("certificate/*")
		}
		return cmp.Or(a.plain(path), "*")
	}
	return a.arn(path)
}

// plain writes an ARN of App Mesh as policies do: a mesh of the ARN's own account
// may be called mesh/NAME@ACCOUNT, but is mesh/NAME.
func (a asked) plain(arn string) string {
	begin, rest, found := strings.Cut(arn, "/")
	if a.service != "appmesh" || !found {
		return arn
	}
	name, below, more := strings.Cut(rest, "/")
	name = strings.TrimSuffix(name, "@"+accountOf(arn))
	if more {
		name += "/" + below
	}
	return begin + "/" + name
}

func (a asked) arn(path string) string {
	owner := cmp.Or(a.text("MeshOwner"), a.principal.Account)
	region := a.mux.cfg.Region
	return "arn:" + Partition(region) + ":" + a.service + ":" + region + ":" + owner + ":" + path
}

// accountOf is whose the resource of an ARN is; empty: the caller's.
func accountOf(arn string) string {
	fields := strings.SplitN(arn, ":", 6)
	if len(fields) < 6 {
		return ""
	}
	return fields[4]
}

// member is a member of the input, its pointer followed; the zero Value if it is
// absent.
func (a asked) member(name string) reflect.Value {
	v := reflect.Indirect(a.input)
	switch v.Kind() {
	case reflect.Struct:
		return reflect.Indirect(v.FieldByName(name))
	case reflect.Map:
		return v.MapIndex(reflect.ValueOf(name))
	}
	return reflect.Value{}
}

func (a asked) text(name string) string {
	if v := a.member(name); v.Kind() == reflect.String {
		return v.String()
	}
	return ""
}

// addInput adds the condition keys that an input has, and says whether it has
// tags.
func (a asked) addInput() (tagged bool) {
	keys := []string{}
	if tags := a.member("Tags"); tags.Kind() == reflect.Slice {
		for i := range tags.Len() {
			tag := asked{input: tags.Index(i)}
			keys = append(keys, tag.text("Key"))
			addTags(a.values, "aws:requesttag/", map[string]string{tag.text("Key"): tag.text("Value")})
		}
	}
	tagged = len(keys) > 0
	if list, ok := a.list("TagKeys"); ok {
		keys = append(keys, list...)
	}
	if len(keys) > 0 {
		a.values["aws:tagkeys"] = keys
	}
	for key, name := range map[string]string{"acm-pca:templatearn": "TemplateArn", "acm:validationmethod": "ValidationMethod", "acm:keyalgorithm": "KeyAlgorithm", "acm:certificateauthority": "CertificateAuthorityArn"} {
		service, _, _ := strings.Cut(key, ":")
		if text := a.text(name); text != "" && service == a.service {
			a.values[key] = []string{text}
		}
	}
	if a.service == "acm-pca" && a.member("Csr").IsValid() && a.text("TemplateArn") == "" {
		a.values["acm-pca:templatearn"] = []string{"arn:" + Partition(a.mux.cfg.Region) + ":acm-pca:::template/EndEntityCertificate/V1"}
	}
	if domain := a.text("DomainName"); domain != "" && a.service == "acm" {
		names, _ := a.list("SubjectAlternativeNames")
		for _, name := range append([]string{domain}, names...) {
			a.values["acm:domainnames"] = append(a.values["acm:domainnames"], strings.ToLower(name))
		}
	}
	return tagged
}

func (a asked) list(name string) ([]string, bool) {
	v := a.member(name)
	if v.Kind() != reflect.Slice {
		return nil, false
	}
	list, ok := v.Interface().([]string)
	return list, ok
}

// settingPrefix begins the keys of tags that are settings of their resource.
const settingPrefix = "fairlead:"

// tagUpdate is the operation that changing such tags needs as well; empty: none.
func (a asked) tagUpdate(action, arn string) string {
	if a.service != "appmesh" || action != "TagResource" && action != "UntagResource" {
		return ""
	}
	if !slices.ContainsFunc(a.values["aws:tagkeys"], func(key string) bool { return strings.HasPrefix(strings.ToLower(key), settingPrefix) }) {
		return ""
	}
	parts := strings.Split(arn, "/")
	if len(parts) < 4 {
		return "UpdateMesh"
	}
	kind := parts[len(parts)-2]
	if kind == "" {
		return "UpdateMesh"
	}
	return "Update" + strings.ToUpper(kind[:1]) + kind[1:]
}

// reference is what a mesh spec names of another service, and what a caller
// needs to be allowed to name it.
type reference struct{ service, action, arn string }

func (a asked) references() []reference {
	if a.service != "appmesh" {
		return nil
	}
	var found []reference
	walk(a.member("Spec"), func(name string, v reflect.Value) {
		switch {
		case name == "CertificateArn" && v.Kind() == reflect.String:
			found = append(found, reference{"acm", "DescribeCertificate", v.String()})
		case name == "CertificateAuthorityArns" && v.Kind() == reflect.Slice:
			for i := range v.Len() {
				found = append(found, reference{"acm-pca", "DescribeCertificateAuthority", v.Index(i).String()})
			}
		}
	})
	return found
}

// walk visits all members of a structure, however deep.
func walk(v reflect.Value, visit func(name string, v reflect.Value)) {
	v = reflect.Indirect(v)
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				member := reflect.Indirect(v.Field(i))
				visit(field.Name, member)
				walk(member, visit)
			}
		}
	}
}
