package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	acmpcasdk "github.com/aws/aws-sdk-go-v2/service/acmpca"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	meshsdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	meshtypes "github.com/aws/aws-sdk-go-v2/service/appmesh/types"
	stssdk "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/internal/iam"
)

func (p *plane) meshAPI(creds aws.Credentials) *meshsdk.Client {
	return meshsdk.New(meshsdk.Options{BaseEndpoint: &p.url, Region: "us-east-1", RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: creds}})
}

func (p *plane) sts(creds aws.Credentials) *stssdk.Client {
	return stssdk.New(stssdk.Options{BaseEndpoint: &p.url, Region: "us-east-1", RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: creds}})
}

// fairlead runs the command line as root and returns what it answers.
func (p *plane) fairlead(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", p.url)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", p.config.DataDir+"/credentials")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	cmd := rootCommand()
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func (p *plane) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.fairlead(t, args...)
	if err != nil {
		t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// policyFile writes a policy whose quotes are single ones.
func policyFile(t *testing.T, statements string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.json")
	text := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "'", `"`) + `]}`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func keyIn(t *testing.T, out string) aws.Credentials {
	t.Helper()
	var c aws.Credentials
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		switch name {
		case "aws_access_key_id":
			c.AccessKeyID = value
		case "aws_secret_access_key":
			c.SecretAccessKey = value
		}
	}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		t.Fatalf("no key in %s", out)
	}
	return c
}

// wantCode: an error with a code and a part of its message, or none.
func wantCode(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	refused, ok := errors.AsType[smithy.APIError](err)
	if !ok || refused.ErrorCode() != code || !strings.Contains(refused.ErrorMessage(), message) {
		t.Errorf("%s: %v, want %s: %s", what, err, code, message)
	}
}

const meshARN = "arn:aws:appmesh:us-east-1:" + homeAccount + ":mesh/"

// TestRestrictedUser: what the commands make, the SDK meets.
func TestRestrictedUser(t *testing.T) {
	p := newPlane(t)
	ctx := t.Context()
	p.must(t, "iam", "create", "policy", "apps", "--document", policyFile(t,
		`{'Sid':'Own','Effect':'Allow','Action':'appmesh:*','Resource':['`+meshARN+`apps','`+meshARN+`apps/*']},
		{'Effect':'Allow','Action':'appmesh:TagResource','Resource':'*','Condition':{'ForAllValues:StringEquals':{'aws:TagKeys':['env']}}},
		{'Sid':'NoProd','Effect':'Deny','Action':'appmesh:Delete*','Resource':'*','Condition':{'StringEquals':{'aws:ResourceTag/env':'prod'}}}`))
	p.must(t, "iam", "create", "group", "team", "--policy", "apps")
	p.must(t, "iam", "create", "user", "alice", "--group", "team")
	key := keyIn(t, p.must(t, "iam", "key", "create", "alice"))
	client := p.meshAPI(key)
	create := func(name string, tags ...meshtypes.TagRef) error {
		_, err := client.CreateMesh(ctx, &meshsdk.CreateMeshInput{MeshName: &name, Tags: tags})
		return err
	}
	tag := func(key, value string) meshtypes.TagRef { return meshtypes.TagRef{Key: &key, Value: &value} }
	const denied = "AccessDeniedException"
	alice := "User: arn:aws:iam::" + homeAccount + ":user/alice is not authorized to perform: "
	wantCode(t, "another mesh", create("other"), denied, alice+"appmesh:CreateMesh on resource: "+meshARN+"other because no identity-based policy allows the appmesh:CreateMesh action")
	wantCode(t, "its own, with a tag", create("apps", tag("env", "prod")), "", "")
	_, err := client.ListMeshes(ctx, nil)
	wantCode(t, "all meshes", err, denied, "on resource: * because")
	_, err = client.DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "describe", err, "", "")
	_, err = client.DeleteMesh(ctx, &meshsdk.DeleteMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "delete what is tagged prod", err, denied, alice+"appmesh:DeleteMesh on resource: "+meshARN+"apps with an explicit deny in an identity-based policy")
	tagged := func(key string) error {
		_, err := client.TagResource(ctx, &meshsdk.TagResourceInput{ResourceArn: aws.String(meshARN + "apps"), Tags: []meshtypes.TagRef{tag(key, "x")}})
		return err
	}
	wantCode(t, "a tag", tagged("team"), "", "")
	p.must(t, "iam", "create", "policy", "frozen", "--document", policyFile(t, `{'Effect':'Deny','Action':'appmesh:UpdateMesh','Resource':'*'}`))
	p.must(t, "iam", "attach", "user", "alice", "--policy", "frozen")
	wantCode(t, "a tag that is a setting", tagged("fairlead:tls-minimum-version"), denied, alice+"appmesh:UpdateMesh on resource: "+meshARN+"apps with an explicit deny")
	wantCode(t, "a tag that is none", tagged("team"), "", "")
	_, err = client.TagResource(ctx, &meshsdk.TagResourceInput{ResourceArn: aws.String(meshARN + "apps@" + homeAccount), Tags: []meshtypes.TagRef{tag("fairlead:x", "x")}})
	wantCode(t, "by the mesh's other name", err, denied, alice+"appmesh:UpdateMesh on resource: "+meshARN+"apps with an explicit deny")
	p.must(t, "iam", "detach", "user", "alice", "--policy", "frozen")
	_, err = client.CreateVirtualNode(ctx, nodeWith("arn:aws:acm:us-east-1:"+homeAccount+":certificate/00000000-0000-4000-8000-000000000000"))
	wantCode(t, "a certificate that it may not describe", err, denied, alice+"acm:DescribeCertificate on resource: arn:aws:acm:")
	_, err = p.sts(key).GetCallerIdentity(ctx, nil)
	wantCode(t, "who it is", err, "", "")

	said := p.must(t, "iam", "simulate", "arn:aws:iam::"+homeAccount+":user/alice", "appmesh:DeleteMesh", meshARN+"apps", "--context", "aws:ResourceTag/env=prod")
	if want := "explicitDeny with an explicit deny in an identity-based policy\ndecided by statement 3 (NoProd) of arn:aws:iam::" + homeAccount + ":policy/apps\n"; said != want {
		t.Errorf("simulate said %q, want %q", said, want)
	}
	p.must(t, "iam", "create", "policy", "nothing", "--document", policyFile(t, `{'Effect':'Allow','Action':'acm:*','Resource':'*'}`))
	p.must(t, "iam", "attach", "user", "alice", "--boundary", "nothing")
	_, err = client.DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "bounded", err, denied, "because no permissions boundary allows")
	p.must(t, "iam", "detach", "user", "alice", "--boundary")

	p.must(t, "iam", "key", "disable", "alice", key.AccessKeyID)
	_, err = client.DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "with a disabled key", err, "UnrecognizedClientException", "")
	p.must(t, "iam", "key", "enable", "alice", key.AccessKeyID)
	_, err = client.DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "with the key enabled again", err, "", "")
	second := keyIn(t, p.must(t, "iam", "key", "create", "alice"))
	if _, err := p.fairlead(t, "iam", "key", "create", "alice"); err == nil || !strings.Contains(err.Error(), "has 2 access keys") {
		t.Errorf("a third key: %v", err)
	}
	p.must(t, "iam", "key", "delete", "alice", key.AccessKeyID)
	p.must(t, "iam", "delete", "user", "alice")
	p.must(t, "iam", "create", "user", "alice", "--group", "team")
	_, err = p.meshAPI(second).DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "the key of an earlier user of the name", err, "UnrecognizedClientException", "")
}

func nodeWith(certificate string) *meshsdk.CreateVirtualNodeInput {
	port := int32(8080)
	return &meshsdk.CreateVirtualNodeInput{MeshName: aws.String("apps"), VirtualNodeName: aws.String("api"), Spec: &meshtypes.VirtualNodeSpec{
		Listeners: []meshtypes.Listener{{PortMapping: &meshtypes.PortMapping{Port: &port, Protocol: meshtypes.PortProtocolHttp},
			Tls: &meshtypes.ListenerTls{Mode: meshtypes.ListenerTlsModeStrict, Certificate: &meshtypes.ListenerTlsCertificateMemberAcm{Value: meshtypes.ListenerTlsAcmCertificate{CertificateArn: &certificate}}}}},
	}}
}

// TestRefusedEntities: what cannot be made, and what must stay.
func TestRefusedEntities(t *testing.T) {
	p := newPlane(t)
	p.must(t, "iam", "create", "policy", "p", "--document", policyFile(t, `{'Effect':'Allow','Action':'*','Resource':'*'}`))
	p.must(t, "iam", "create", "group", "g", "--policy", "p")
	p.must(t, "iam", "create", "user", "u", "--group", "g")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"iam", "create", "policy", "q", "--document", policyFile(t, `{'Effect':'Allow','Action':'*','Resources':'*'}`)}, "/Statement/0/Resources is not an element of a statement"},
		{[]string{"iam", "create", "policy", "q"}, "is not JSON"},
		{[]string{"iam", "create", "policy", "p", "--document", policyFile(t, `{'Effect':'Allow','Action':'*','Resource':'*'}`)}, "already"},
		{[]string{"iam", "create", "user", "v", "--policy", "absent"}, `There is no policy "absent"`},
		{[]string{"iam", "create", "user", "a/b"}, "is not 1 to 64 letters"},
		{[]string{"iam", "create", "user", "v", "--account", otherAccount}, "there is no account " + otherAccount},
		{[]string{"iam", "create", "group", "h", "--boundary", "p"}, "boundary: a group has none"},
		{[]string{"iam", "create", "role", "r"}, "is not JSON"},
		{[]string{"iam", "create", "account", "12"}, "does not have 12 digits"},
		{[]string{"iam", "create", "account", homeAccount}, "it is the server's own"},
		{[]string{"iam", "create", "thing", "x"}, "is not account, user, group, role or policy"},
		{[]string{"iam", "delete", "policy", "p"}, "is in use by arn:aws:iam::" + homeAccount + ":group/g"},
		{[]string{"iam", "delete", "group", "g"}, "is in use by arn:aws:iam::" + homeAccount + ":user/u"},
		{[]string{"iam", "delete", "user", "nobody"}, "There is no user nobody"},
		{[]string{"iam", "detach", "user", "u", "--policy", "p"}, "is not attached"},
		{[]string{"iam", "key", "delete", "u", "AKIAABSENT"}, "has no access key"},
		{[]string{"iam", "simulate", "arn:aws:iam::" + homeAccount + ":user/nobody", "a:b"}, "is not the ARN of a user or role"},
	} {
		if out, err := p.fairlead(t, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v %s\nwant %s", strings.Join(test.args, " "), err, out, test.want)
		}
	}
	p.must(t, "iam", "create", "account", otherAccount)
	p.must(t, "iam", "create", "user", "v", "--account", otherAccount)
	if _, err := p.fairlead(t, "iam", "delete", "account", otherAccount); err == nil || !strings.Contains(err.Error(), "is in use by") {
		t.Errorf("an account with a user: %v", err)
	}
	// Nobody of another account may have anything of the server's own.
	p.must(t, "iam", "create", "policy", "all", "--account", otherAccount, "--document", policyFile(t, `{'Effect':'Allow','Action':'*','Resource':'*'}`))
	p.must(t, "iam", "attach", "user", "v", "--account", otherAccount, "--policy", "all")
	key := keyIn(t, p.must(t, "iam", "key", "create", "v", "--account", otherAccount))
	status, body := p.send(t, key, apiCall{service: "fairlead", method: http.MethodGet, target: "/fairlead/v1/proxies"})
	if status != http.StatusForbidden {
		t.Errorf("another account lists proxies: %d %s", status, body)
	}
	if list := p.must(t, "iam", "list", "user"); !strings.Contains(list, homeAccount+"   u ") || !strings.Contains(list, otherAccount+"   v ") {
		t.Errorf("list: %s", list)
	}
}

// TestAssumeRole: sessions of roles by the SDK.
func TestAssumeRole(t *testing.T) {
	p := newPlane(t)
	ctx := t.Context()
	_, key := p.user(t, homeAccount, "alice", "allow")
	_, nobody := p.user(t, homeAccount, "nobody")
	aliceKey, _ := p.user(t, homeAccount, "bob", "allow")
	ref := iam.Ref{Kind: iam.KindRole, Account: homeAccount, Name: "deploy"}
	p.entity(t, iam.Entity{Ref: ref, Trust: trustHome, MaxSession: 7200, Policies: []string{"allow"}})
	assume := func(creds aws.Credentials, edit func(*stssdk.AssumeRoleInput)) (aws.Credentials, *stssdk.AssumeRoleOutput, error) {
		in := &stssdk.AssumeRoleInput{RoleArn: aws.String(ref.ARN()), RoleSessionName: aws.String("ci@1")}
		if edit != nil {
			edit(in)
		}
		out, err := p.sts(creds).AssumeRole(ctx, in)
		if err != nil {
			return aws.Credentials{}, nil, err
		}
		return aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}, out, nil
	}
	session, out, err := assume(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	arn := "arn:aws:sts::" + homeAccount + ":assumed-role/deploy/ci@1"
	if *out.AssumedRoleUser.Arn != arn || !strings.HasSuffix(*out.AssumedRoleUser.AssumedRoleId, ":ci@1") || time.Until(*out.Credentials.Expiration).Round(time.Minute) != time.Hour {
		t.Errorf("assumed %v, expires %v", *out.AssumedRoleUser.Arn, out.Credentials.Expiration)
	}
	who, err := p.sts(session).GetCallerIdentity(ctx, nil)
	if err != nil || *who.Arn != arn || *who.Account != homeAccount || *who.UserId != *out.AssumedRoleUser.AssumedRoleId {
		t.Errorf("the session is %+v, %v", who, err)
	}
	_, err = p.meshAPI(session).CreateMesh(ctx, &meshsdk.CreateMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "as the role", err, "", "")

	narrowed, _, err := assume(key, func(in *stssdk.AssumeRoleInput) {
		in.Policy = aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appmesh:Describe*","Resource":"*"}}` + strings.Repeat(" ", 1900))
	})
	wantCode(t, "with a session policy", err, "", "")
	_, err = p.meshAPI(narrowed).DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "what it was narrowed to", err, "", "")
	_, err = p.meshAPI(narrowed).ListMeshes(ctx, nil)
	wantCode(t, "beyond", err, "AccessDeniedException", "because no session policy allows the appmesh:ListMeshes action")

	for _, test := range []struct {
		name          string
		creds         aws.Credentials
		edit          func(*stssdk.AssumeRoleInput)
		code, message string
	}{
		{"without a policy", nobody, nil, "AccessDenied", "is not authorized to perform: sts:AssumeRole on resource: " + ref.ARN() + " because no identity-based policy"},
		{"no such role", key, func(in *stssdk.AssumeRoleInput) { in.RoleArn = aws.String(ref.ARN() + "2") }, "AccessDenied", "because no resource-based policy allows"},
		{"no ARN", key, func(in *stssdk.AssumeRoleInput) { in.RoleArn = aws.String("deploy-the-thing-here") }, "AccessDenied", "because no resource-based policy allows"},
		{"too long", key, func(in *stssdk.AssumeRoleInput) { in.DurationSeconds = aws.Int32(7201) }, "ValidationError", "exceeds the MaxSessionDuration"},
		{"too short", key, func(in *stssdk.AssumeRoleInput) { in.DurationSeconds = aws.Int32(899) }, "ValidationError", "DurationSeconds"},
		{"long by chaining", session, func(in *stssdk.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) }, "ValidationError", "role chaining"},
		{"an odd name", key, func(in *stssdk.AssumeRoleInput) { in.RoleSessionName = aws.String("a b") }, "ValidationError", "RoleSessionName"},
		{"a bad policy", key, func(in *stssdk.AssumeRoleInput) { in.Policy = aws.String(`{"Statement":[]}`) }, "MalformedPolicyDocument", "has no Statement"},
		{"a long policy", key, func(in *stssdk.AssumeRoleInput) { in.Policy = aws.String(allowAll + strings.Repeat(" ", 2048)) }, "PackedPolicyTooLarge", "2048"},
		{"chained", session, nil, "", ""},
	} {
		_, _, err := assume(test.creds, test.edit)
		wantCode(t, test.name, err, test.code, test.message)
	}
	_, err = p.sts(session).GetSessionToken(ctx, nil)
	wantCode(t, "a session's session", err, "AccessDenied", "session credentials")

	// Between accounts both sides must allow.
	_, stranger := p.user(t, otherAccount, "stranger", "allow")
	_, _, err = assume(stranger, nil)
	wantCode(t, "another account that is not trusted", err, "AccessDenied", "because no resource-based policy allows the sts:AssumeRole action")
	shared := iam.Ref{Kind: iam.KindRole, Account: homeAccount, Name: "shared"}
	p.entity(t, iam.Entity{Ref: shared, Trust: strings.ReplaceAll(trustHome, homeAccount, otherAccount), MaxSession: 3600, Policies: []string{"allow"}})
	visiting, _, err := assume(stranger, func(in *stssdk.AssumeRoleInput) { in.RoleArn = aws.String(shared.ARN()) })
	wantCode(t, "another account that is trusted", err, "", "")
	_, err = p.meshAPI(visiting).DescribeMesh(ctx, &meshsdk.DescribeMeshInput{MeshName: aws.String("apps")})
	wantCode(t, "as a role of this account", err, "", "")
	_, unable := p.user(t, otherAccount, "unable")
	_, _, err = assume(unable, func(in *stssdk.AssumeRoleInput) { in.RoleArn = aws.String(shared.ARN()) })
	wantCode(t, "a trusted account's user without a policy", err, "AccessDenied", "because no identity-based policy allows the sts:AssumeRole action")

	// The key that a session goes back to ends it, and so does the role.
	ended, _, err := assume(credentialsOf(aliceKey, ""), nil)
	wantCode(t, "as bob", err, "", "")
	chained, _, err := assume(ended, nil)
	wantCode(t, "chained", err, "", "")
	if err := p.store.DeleteUserKey(ctx, homeAccount, "bob", aliceKey.ID); err != nil {
		t.Fatal(err)
	}
	for name, creds := range map[string]aws.Credentials{"of a key that is gone": ended, "chained from one": chained} {
		_, err = p.meshAPI(creds).ListMeshes(ctx, nil)
		wantCode(t, "a session "+name, err, "UnrecognizedClientException", "")
	}
	p.must(t, "iam", "delete", "role", "deploy")
	p.entity(t, iam.Entity{Ref: ref, Trust: trustHome, MaxSession: 7200, Policies: []string{"allow"}})
	_, err = p.meshAPI(session).ListMeshes(ctx, nil)
	wantCode(t, "a session of an earlier role of the name", err, "UnrecognizedClientException", "")
}

// TestConditionKeys: those that other services' inputs bring along.
func TestConditionKeys(t *testing.T) {
	p := newPlane(t)
	p.must(t, "iam", "create", "policy", "leafs", "--document", policyFile(t,
		`{'Effect':'Allow','Action':'acm-pca:*','Resource':'*'},
		{'Effect':'Deny','Action':'acm-pca:IssueCertificate','Resource':'*','Condition':{'StringNotLike':{'acm-pca:TemplateArn':'*/EndEntity*'}}}`))
	p.must(t, "iam", "create", "user", "issuer", "--policy", "leafs")
	key := keyIn(t, p.must(t, "iam", "key", "create", "issuer"))
	client := acmpcasdk.New(acmpcasdk.Options{BaseEndpoint: &p.url, Region: "us-east-1", RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: key}})
	for template, denied := range map[string]bool{"": false, "EndEntityClientAuthCertificate/V1": false, "SubordinateCACertificate_PathLen0/V1": true} {
		in := &acmpcasdk.IssueCertificateInput{CertificateAuthorityArn: aws.String("arn:aws:acm-pca:us-east-1:" + homeAccount + ":certificate-authority/00000000-0000-4000-8000-000000000000"),
			Csr: []byte("x"), SigningAlgorithm: pcatypes.SigningAlgorithmSha256withecdsa, Validity: &pcatypes.Validity{Type: pcatypes.ValidityPeriodTypeDays, Value: aws.Int64(1)}}
		if template != "" {
			in.TemplateArn = aws.String("arn:aws:acm-pca:::template/" + template)
		}
		_, err := client.IssueCertificate(context.WithoutCancel(t.Context()), in)
		if refused, ok := errors.AsType[smithy.APIError](err); !ok || (refused.ErrorCode() == "AccessDeniedException") != denied {
			t.Errorf("template %q: %v, denied %v", template, err, denied)
		}
	}
}
