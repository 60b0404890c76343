package awsapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	acmsdk "github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	pcasdk "github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/schemas"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go/transport/http/protocol/rpcv2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
)

func pcaClient(endpoint string, options ...func(*pcasdk.Options)) *pcasdk.Client {
	return pcasdk.New(pcasdk.Options{BaseEndpoint: &endpoint, Region: testRegion, RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: rootCreds}}, options...)
}

func speakCBOR(o *pcasdk.Options) { o.Protocol = rpcv2.NewCBOR(schemas.ACMPrivateCA) }

func acmClient(endpoint string) *acmsdk.Client {
	return acmsdk.New(acmsdk.Options{BaseEndpoint: &endpoint, Region: testRegion, RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: rootCreds}})
}

// conversation is what the service of a test was asked and what it answers.
type conversation struct{ asked, answer any }

// recording makes operations that record and answer; the models' tables are the
// same otherwise.
func recording[S any](ops []api.Operation[S], e *conversation) []api.Operation[S] {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].Call = func(_ context.Context, _ S, in any) (any, error) {
			e.asked = in
			return e.answer, nil
		}
	}
	return ops
}

// TestGoSDKCallsEverything: each operation of both models through the SDK, in
// each protocol that the SDK speaks: what the client says arrives typed, and
// what the service answers is what the client reads.
func TestGoSDKCallsEverything(t *testing.T) {
	var e conversation
	mux := newTestMux(Config{})
	MountTargets[acmpca.Service](mux, acmpca.SigningName, acmpca.TargetPrefix, nil, recording(acmpca.Operations, &e))
	MountTargets[acm.Service](mux, acm.SigningName, acm.TargetPrefix, nil, recording(acm.Operations, &e))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, client := range []struct {
		name    string
		client  any
		service reflect.Type
		methods int
	}{
		{"acmpca JSON", pcaClient(server.URL), reflect.TypeFor[acmpca.Service](), 23},
		{"acmpca CBOR", pcaClient(server.URL, speakCBOR), reflect.TypeFor[acmpca.Service](), 23},
		{"acm JSON", acmClient(server.URL), reflect.TypeFor[acm.Service](), 40},
	} {
		if n := client.service.NumMethod(); n != client.methods {
			t.Errorf("%s: %d operations", client.name, n)
		}
		for i := range client.service.NumMethod() {
			method := client.service.Method(i)
			t.Run(client.name+" "+method.Name, func(t *testing.T) {
				for seed := range uint64(6) {
					callBySDK(t, rand.New(rand.NewPCG(seed, 11)), reflect.ValueOf(client.client).MethodByName(method.Name), method, &e)
				}
			})
		}
	}
}

func callBySDK(t *testing.T, r *rand.Rand, call reflect.Value, method reflect.Method, e *conversation) {
	t.Helper()
	if !call.IsValid() {
		t.Fatal("the SDK has no such operation")
	}
	in := reflect.New(reflect.TypeFor[struct{}]())
	if method.Type.NumIn() == 2 {
		in = reflect.New(method.Type.In(1).Elem())
	}
	fillValid(r, in.Elem(), 0)
	if faults := Validate(in.Interface()); len(faults) > 0 {
		t.Fatalf("the test's own input: %v", faults)
	}
	*e = conversation{}
	want := reflect.New(call.Type().Out(0).Elem())
	if method.Type.NumOut() == 2 {
		out := reflect.New(method.Type.Out(0).Elem())
		fillValid(r, out.Elem(), 0)
		e.answer = out.Interface()
		inSDK(t, want.Elem(), out.Elem())
	}
	input := reflect.New(call.Type().In(1).Elem())
	inSDK(t, input.Elem(), in.Elem())
	results := call.Call([]reflect.Value{reflect.ValueOf(t.Context()), input})
	if err := results[1].Interface(); err != nil {
		t.Fatalf("%v\n%+v", err, in.Interface())
	}
	if diff := cmp.Diff(in.Interface(), e.asked, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("what the client said (-want +got):\n%s", diff)
	}
	ofSDK := cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".ResultMetadata" || name == ".noSmithyDocumentSerde"
	}, cmp.Ignore())
	// The SDK cuts times to milliseconds and does not round them.
	if diff := cmp.Diff(want.Interface(), results[0].Interface(), ofSDK, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
		t.Errorf("what the client read (-want +got):\n%s", diff)
	}
}

// inSDK writes a value of the generated types as the SDK has it.
func inSDK(t *testing.T, to, from reflect.Value) {
	t.Helper()
	_, secret := secretIn(from)
	if _, timestamp := from.Interface().(api.Timestamp); from.IsZero() && (timestamp || secret || from.Kind() == reflect.Pointer || from.Kind() == reflect.Slice) {
		return
	}
	switch x := from.Interface().(type) {
	case api.Timestamp:
		to.Set(reflect.ValueOf(&x.Time))
		return
	case api.Secret:
		if to.Kind() == reflect.Pointer {
			to.Set(reflect.New(to.Type().Elem()))
			to = to.Elem()
		}
		to.SetString(x.Reveal())
		return
	case api.SecretBlob:
		to.SetBytes([]byte(x.Reveal()))
		return
	}
	if from.Kind() == reflect.Pointer {
		inSDK(t, to, from.Elem())
		return
	}
	if to.Kind() == reflect.Interface {
		to.Set(unionInSDK(t, to.Type(), from))
		return
	}
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	}
	switch from.Kind() {
	case reflect.Struct:
		for i := range from.NumField() {
			name := from.Type().Field(i).Name
			field := to.FieldByName(name)
			if !field.IsValid() {
				t.Fatalf("the SDK's %s has no %s", to.Type(), name)
			}
			inSDK(t, field, from.Field(i))
		}
	case reflect.Slice:
		if isBlob(from.Type()) {
			to.SetBytes(from.Bytes())
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			inSDK(t, to.Index(i), from.Index(i))
		}
	case reflect.String:
		to.SetString(from.String())
	case reflect.Bool:
		to.SetBool(from.Bool())
	default:
		to.SetInt(from.Int())
	}
}

// unionMembers are the SDK's types of the members of unions.
var unionMembers = []any{
	acmtypes.AcmCertificateMetadataFilterMemberAcmeAccountId{}, acmtypes.AcmCertificateMetadataFilterMemberAcmeEndpointArn{},
	acmtypes.AcmCertificateMetadataFilterMemberCertificateKeyPairOrigin{}, acmtypes.AcmCertificateMetadataFilterMemberExported{},
	acmtypes.AcmCertificateMetadataFilterMemberExportOption{}, acmtypes.AcmCertificateMetadataFilterMemberInUse{}, acmtypes.AcmCertificateMetadataFilterMemberManagedBy{},
	acmtypes.AcmCertificateMetadataFilterMemberRenewalStatus{}, acmtypes.AcmCertificateMetadataFilterMemberStatus{}, acmtypes.AcmCertificateMetadataFilterMemberType{},
	acmtypes.AcmCertificateMetadataFilterMemberValidationMethod{}, acmtypes.CertificateAuthorityMemberPublicCertificateAuthority{},
	acmtypes.CertificateFilterMemberAcmCertificateMetadataFilter{}, acmtypes.CertificateFilterMemberCertificateArn{}, acmtypes.CertificateFilterMemberX509AttributeFilter{},
	acmtypes.CertificateFilterStatementMemberAnd{}, acmtypes.CertificateFilterStatementMemberFilter{}, acmtypes.CertificateFilterStatementMemberNot{},
	acmtypes.CertificateFilterStatementMemberOr{}, acmtypes.CertificateMetadataMemberAcmCertificateMetadata{}, acmtypes.GeneralNameMemberDirectoryName{},
	acmtypes.GeneralNameMemberDnsName{}, acmtypes.GeneralNameMemberIpAddress{}, acmtypes.GeneralNameMemberOtherName{}, acmtypes.GeneralNameMemberRegisteredId{},
	acmtypes.GeneralNameMemberRfc822Name{}, acmtypes.GeneralNameMemberUniformResourceIdentifier{}, acmtypes.PrevalidationDetailsMemberDnsPrevalidation{},
	acmtypes.PrevalidationOptionsMemberDnsPrevalidation{}, acmtypes.SubjectAlternativeNameFilterMemberDnsName{}, acmtypes.SubjectFilterMemberCommonName{},
	acmtypes.ValidationChallengeMemberDnsValidationChallenge{}, acmtypes.ValidationChallengeMemberEmailValidationChallenge{},
	acmtypes.X509AttributeFilterMemberExtendedKeyUsage{}, acmtypes.X509AttributeFilterMemberKeyAlgorithm{}, acmtypes.X509AttributeFilterMemberKeyUsage{},
	acmtypes.X509AttributeFilterMemberNotAfter{}, acmtypes.X509AttributeFilterMemberNotBefore{}, acmtypes.X509AttributeFilterMemberSerialNumber{},
	acmtypes.X509AttributeFilterMemberSubject{}, acmtypes.X509AttributeFilterMemberSubjectAlternativeName{},
}

// unionInSDK makes the member of a union that is set.
func unionInSDK(t *testing.T, union reflect.Type, from reflect.Value) reflect.Value {
	t.Helper()
	for i := range from.NumField() {
		if from.Field(i).IsZero() {
			continue
		}
		for _, member := range unionMembers {
			if made := reflect.New(reflect.TypeOf(member)); made.Elem().Type().Name() == union.Name()+"Member"+from.Type().Field(i).Name {
				inSDK(t, made.Elem().FieldByName("Value"), from.Field(i))
				return made
			}
		}
	}
	t.Fatalf("the SDK has no member of %s for %+v", union, from)
	return reflect.Value{}
}

// texts are what patterns may want.
var texts = []string{
	authorityARN, certificateARN, authorityARN + "/certificate/0a", "arn:aws:acm:us-east-1:000000000000:acme-endpoint/e",
	"arn:aws:acm:us-east-1:000000000000:acme-endpoint/e/acme-domain-validation/d", "arn:aws:acm:us-east-1:000000000000:acme-endpoint/e/acme-external-account-binding/b",
	"arn:aws:iam::000000000000:role/r", "US", "a", "2.5.29.17", "example.com", "*.example.com", "11111111-2222-4333-8444-555555555555", "000000000000", "Z1X",
	"0a:0b", "YWJj", "token_1", "acm.amazonaws.com", "née \"quoted\" \\ <&> €", "line\r\nline", "x/y", "",
	"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n",
}

// fillValid makes a random value that its tags allow.
func fillValid(r *rand.Rand, v reflect.Value, depth int) {
	plan := planOf(v.Type())
	chosen := r.IntN(len(plan.fields) + 1) // of a union
	if filter, recursive := plan.body["Filter"]; recursive && depth > 5 {
		chosen = filter.index
	}
	for i := range plan.fields {
		f := &plan.fields[i]
		token := v.Type().Field(f.index).Tag.Get("token") == "true" // the SDK makes one
		if plan.union && f.index == chosen%len(plan.fields) || !plan.union && (f.required || token || r.IntN(2) == 0) {
			fillMember(r, v.Field(f.index), f.self, f.each, depth)
		}
	}
}

func fillMember(r *rand.Rand, v reflect.Value, l, each limits, depth int) {
	least, most := int64(0), int64(1<<31-1)
	if l.min != nil {
		least = *l.min
	}
	if l.max != nil {
		most = min(most, *l.max)
	}
	switch v.Interface().(type) {
	case api.Timestamp:
		fill(r, v, 0)
		return
	case api.Secret:
		v.Set(reflect.ValueOf(api.NewSecret(validText(r, l, least, most))))
		return
	case api.SecretBlob:
		v.Set(reflect.ValueOf(api.NewSecretBlob([]byte(strings.Repeat("\x00é", int(least))[:least]))))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillMember(r, v.Elem(), l, each, depth)
	case reflect.Struct:
		fillValid(r, v, depth+1)
	case reflect.Slice:
		n := int(min(most, max(least, 1)+r.Int64N(3)))
		if isBlob(v.Type()) {
			v.SetBytes([]byte(strings.Repeat("\x00\xff-", n)[:n]))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fillMember(r, v.Index(i), each, limits{}, depth)
		}
	case reflect.String:
		if enum, ok := v.Interface().(interface{ Enum() []string }); ok {
			v.SetString(enum.Enum()[r.IntN(len(enum.Enum()))])
			return
		}
		v.SetString(validText(r, l, max(least, 1), most))
	case reflect.Bool:
		v.SetBool(true) // the SDK does not always tell false from absent
	default:
		v.SetInt(least + r.Int64N(most-least+1))
	}
}

func validText(r *rand.Rand, l limits, least, most int64) string {
	start := r.IntN(len(texts))
	for i := range texts {
		s := texts[(start+i)%len(texts)]
		if n := int64(len([]rune(s))); n >= least && n <= most && (l.pattern == nil || l.pattern.MatchString(s)) {
			return s
		}
	}
	panic("no text for the pattern " + l.pattern.String())
}

// TestGoSDKUnions: nested unions, times and lower-case members.
func TestGoSDKUnions(t *testing.T) {
	url, asked := serveRPC(t)
	client := acmClient(url)
	filter := func(f acmtypes.AcmCertificateMetadataFilter) acmtypes.CertificateFilterStatement {
		return &acmtypes.CertificateFilterStatementMemberFilter{Value: &acmtypes.CertificateFilterMemberAcmCertificateMetadataFilter{Value: f}}
	}
	_, err := client.SearchCertificates(t.Context(), &acmsdk.SearchCertificatesInput{FilterStatement: &acmtypes.CertificateFilterStatementMemberAnd{Value: []acmtypes.CertificateFilterStatement{
		filter(&acmtypes.AcmCertificateMetadataFilterMemberInUse{Value: true}),
		&acmtypes.CertificateFilterStatementMemberNot{Value: filter(&acmtypes.AcmCertificateMetadataFilterMemberStatus{Value: acmtypes.CertificateStatusRevoked})},
		&acmtypes.CertificateFilterStatementMemberFilter{Value: &acmtypes.CertificateFilterMemberX509AttributeFilter{
			Value: &acmtypes.X509AttributeFilterMemberNotAfter{Value: acmtypes.TimestampRange{Start: &clockTime.Time}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	yes, revoked := true, acm.CertificateStatusRevoked
	ours := func(f acm.AcmCertificateMetadataFilter) *acm.CertificateFilter {
		return &acm.CertificateFilter{AcmCertificateMetadataFilter: &f}
	}
	want := []any{&acm.SearchCertificatesRequest{FilterStatement: &acm.CertificateFilterStatement{And: []acm.CertificateFilterStatement{
		{Filter: ours(acm.AcmCertificateMetadataFilter{InUse: &yes})},
		{Not: &acm.CertificateFilterStatement{Filter: ours(acm.AcmCertificateMetadataFilter{Status: &revoked})}},
		{Filter: &acm.CertificateFilter{X509AttributeFilter: &acm.X509AttributeFilter{NotAfter: &acm.TimestampRange{Start: clockTime}}}},
	}}}}
	if diff := cmp.Diff(want, asked.take()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	listed, err := client.ListCertificates(t.Context(), &acmsdk.ListCertificatesInput{NextToken: aws.String("a+b/c=\u00e9"), Includes: &acmtypes.Filters{KeyTypes: []acmtypes.KeyAlgorithm{acmtypes.KeyAlgorithmEcPrime256v1}}})
	if err != nil || *listed.NextToken != "a+b/c=\u00e9" {
		t.Errorf("%+v, %v", listed, err)
	}
	keyTypes := []any{&acm.ListCertificatesRequest{NextToken: new("a+b/c=\u00e9"), Includes: &acm.Filters{KeyTypes: []acm.KeyAlgorithm{acm.KeyAlgorithmEcPrime256v1}}}}
	if diff := cmp.Diff(keyTypes, asked.take()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestGoSDKExceptions: the SDK's own types, in both protocols.
func TestGoSDKExceptions(t *testing.T) {
	url, _ := serveRPC(t)
	for name, client := range map[string]*pcasdk.Client{"JSON": pcaClient(url), "CBOR": pcaClient(url, speakCBOR)} {
		_, err := client.GetPolicy(t.Context(), &pcasdk.GetPolicyInput{ResourceArn: aws.String(authorityARN)})
		if absent, ok := errors.AsType[*pcatypes.ResourceNotFoundException](err); !ok || *absent.Message != "no policy is there, née" {
			t.Errorf("%s: an exception: %v", name, err)
		}
		_, err = client.IssueCertificate(t.Context(), &pcasdk.IssueCertificateInput{CertificateAuthorityArn: aws.String("x"), Csr: []byte("x"), SigningAlgorithm: "MD5", Validity: &pcatypes.Validity{Type: "DAYS", Value: aws.Int64(0)}})
		for _, part := range []string{"StatusCode: 400", "ValidationException: 4 validation errors detected", "SigningAlgorithm must be one of", "Validity.Value"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: invalid: %v does not say %s", name, err, part)
			}
		}
		_, err = client.ListTags(t.Context(), &pcasdk.ListTagsInput{CertificateAuthorityArn: aws.String(authorityARN)})
		if err == nil || !strings.Contains(err.Error(), "StatusCode: 500") || !strings.Contains(err.Error(), "InternalFailure: internal error") {
			t.Errorf("%s: a panic: %v", name, err)
		}
		_, err = client.ListCertificateAuthorities(t.Context(), nil, func(o *pcasdk.Options) { // a key of its own: the SDK remembers what it derives
			o.Credentials = credentials.StaticCredentialsProvider{Value: aws.Credentials{AccessKeyID: proxyCreds.AccessKeyID, SecretAccessKey: "x"}}
		})
		if err == nil || !strings.Contains(err.Error(), "InvalidSignatureException: The request signature we calculated") {
			t.Errorf("%s: a wrong secret: %v", name, err)
		}
	}
	_, err := acmClient(url).ExportCertificate(t.Context(), &acmsdk.ExportCertificateInput{CertificateArn: aws.String(certificateARN), Passphrase: []byte("none")})
	if _, ok := errors.AsType[*acmtypes.RequestInProgressException](err); !ok {
		t.Errorf("acm: %v", err)
	}
}
