package server

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/internal/iam"
)

// TestChangesOfPrincipalsAreEverywhereAtOnce: what one server is told of a key or
// a policy, another heeds within a second.
func TestChangesOfPrincipalsAreEverywhereAtOnce(t *testing.T) {
	replicas := newReplicas(t, 2)
	ctx := t.Context()
	edit := func(ref iam.Ref, change func(*iam.Entity)) {
		t.Helper()
		_, err := replicas[0].store.EditEntity(ctx, ref, func(e *iam.Entity) (*iam.Entity, error) {
			if e == nil {
				e = &iam.Entity{Ref: ref}
			}
			change(e)
			return e, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const allow = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appmesh:ListMeshes","Resource":"*"}}`
	policy := iam.Ref{Kind: iam.KindPolicy, Account: testAccount, Name: "list"}
	user := iam.Ref{Kind: iam.KindUser, Account: testAccount, Name: "alice"}
	edit(policy, func(e *iam.Entity) { e.Document = allow })
	edit(user, func(e *iam.Entity) { e.Policies = []string{"list"} })
	key, err := replicas[0].store.CreateUserKey(ctx, testAccount, "alice")
	if err != nil {
		t.Fatal(err)
	}
	client := sdk.New(sdk.Options{BaseEndpoint: &replicas[1].url, Region: testRegion, RetryMaxAttempts: 1,
		Credentials: credentials.StaticCredentialsProvider{Value: aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}}})
	// within waits until the other server answers with a code, or with none.
	within := func(what, want string) {
		t.Helper()
		begun := time.Now()
		for {
			_, err := client.ListMeshes(ctx, nil)
			code := ""
			if refused, ok := errors.AsType[smithy.APIError](err); ok {
				code = refused.ErrorCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); code == want {
				t.Logf("%s: after %v", what, took)
				return
			} else if took > time.Second {
				t.Errorf("%s: still %q after %v, want %q", what, code, took, want)
				return
			}
		}
	}
	within("a new key", "")
	edit(policy, func(e *iam.Entity) { e.Document = `{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}` })
	within("a policy that denies", "AccessDeniedException")
	edit(policy, func(e *iam.Entity) { e.Document = allow })
	within("a policy that allows", "")
	edit(user, func(e *iam.Entity) { e.Keys[0].Disabled = true })
	within("a disabled key", "UnrecognizedClientException")
	edit(user, func(e *iam.Entity) { e.Keys[0].Disabled = false })
	within("the key enabled again", "")
	if err := replicas[0].store.DeleteUserKey(ctx, testAccount, "alice", key.ID); err != nil {
		t.Fatal(err)
	}
	within("a deleted key", "UnrecognizedClientException")
}
