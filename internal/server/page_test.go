package server

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

func testTokens(t testing.TB, key byte, caller string, of location) pageTokens {
	t.Helper()
	tokens, err := newPageTokens(bytes.Repeat([]byte{key}, 32), caller, of)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

var routesOfR = location{mesh.Name{Owner: testAccount, Mesh: "m"}, mesh.ID{Kind: mesh.KindRoute, Parent: "r"}}

// A token opens the list that it was made for, and no other.
func TestPageTokensAreBound(t *testing.T) {
	other := func(change func(*location)) location {
		at := routesOfR
		change(&at)
		return at
	}
	token := testTokens(t, 1, testAccount, routesOfR).Next("x")
	if name, err := testTokens(t, 1, testAccount, routesOfR).after(token); err != nil || name != "x" {
		t.Errorf("its own list: %q, %v", name, err)
	}
	for _, c := range []struct {
		name   string
		tokens pageTokens
	}{
		{"another key", testTokens(t, 2, testAccount, routesOfR)},
		{"another caller", testTokens(t, 1, "111111111111", routesOfR)},
		{"another mesh owner", testTokens(t, 1, testAccount, other(func(l *location) { l.mesh.Owner = "111111111111" }))},
		{"another mesh", testTokens(t, 1, testAccount, other(func(l *location) { l.mesh.Mesh = "n" }))},
		{"another kind", testTokens(t, 1, testAccount, other(func(l *location) { l.id.Kind = mesh.KindGatewayRoute }))},
		{"another router", testTokens(t, 1, testAccount, other(func(l *location) { l.id.Parent = "s" }))},
		{"the tags of a route", testTokens(t, 1, testAccount, other(func(l *location) { l.id.Name = "x" }))},
		{"names that run into each other", testTokens(t, 1, testAccount, other(func(l *location) { l.mesh.Mesh, l.id.Parent = "m/r", "" }))},
	} {
		if name, err := c.tokens.after(token); err == nil {
			t.Errorf("%s: the token was taken, for %q", c.name, name)
		}
	}
}

// No change of a token is a token: not of a bit, a length, or its writing.
func TestPageTokensRejectForgery(t *testing.T) {
	tokens := testTokens(t, 1, testAccount, routesOfR)
	token := *tokens.Next("some-name")
	forged := []string{
		"x", token + "A", token[1:], token[:len(token)-1], token + "\n", token[:4] + "\r\n" + token[4:], token + "=", " " + token,
		strings.Repeat("A", awsapi.MaxPageToken), strings.Repeat("A", awsapi.MaxPageToken+1), strings.Repeat("x", 1<<20),
		base64.RawURLEncoding.EncodeToString([]byte("some-name")),
		*tokens.Next(""), // sealed by us, and of no page
	}
	for i := range token { // every character replaced by its neighbour
		c := base64Alphabet[(strings.IndexByte(base64Alphabet, token[i])+1)%64]
		forged = append(forged, token[:i]+string(c)+token[i+1:])
	}
	for _, f := range forged {
		name, err := tokens.after(&f)
		if err == nil {
			t.Errorf("%.80q was taken, for %q", f, name)
		} else if e, ok := err.(*api.Exception); !ok || e.Code != "BadRequestException" || len(e.Message) > 600 {
			t.Errorf("%.80q: %v", f, err)
		}
	}
	if *tokens.Next("some-name") == token {
		t.Error("two tokens of one page are the same text: they tell where they lead")
	}
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func FuzzPageToken(f *testing.F) {
	tokens := testTokens(f, 1, testAccount, routesOfR)
	f.Add("")
	f.Add("x")
	f.Add(*tokens.Next("x"))
	f.Add(*testTokens(f, 2, testAccount, routesOfR).Next("x"))
	f.Fuzz(func(t *testing.T, token string) {
		name, err := tokens.after(&token)
		if err == nil && token != "" && name == "" {
			t.Fatalf("%q is taken for the first page", token)
		}
		if err == nil && token != "" && !slices.Contains([]string{"x"}, name) {
			t.Fatalf("%q is taken, and was never made", token)
		}
		if err == nil {
			return
		}
		if e, ok := err.(*api.Exception); !ok || e.Code != "BadRequestException" || len(e.Message) > 600 {
			t.Fatalf("%q: %v", token, err)
		}
	})
}

// Pages go on at another server, and at the same one after a restart; what is
// made and deleted meanwhile neither repeats nor hides the rest.
func TestPagesGoOnElsewhere(t *testing.T) {
	ctx := t.Context()
	replicas := newReplicas(t, 2)
	for i := range 6 {
		replicas[0].must(t, "PUT", "/v20190125/meshes", fmt.Sprintf(`{"meshName":"m%d"}`, i))
	}
	first, err := replicas[0].client.ListMeshes(ctx, &sdk.ListMeshesInput{Limit: aws.Int32(3)})
	if err != nil {
		t.Fatal(err)
	}
	replicas[0].must(t, "DELETE", "/v20190125/meshes/m2", "") // where the page has ended
	replicas[0].must(t, "PUT", "/v20190125/meshes", `{"meshName":"m0-late"}`)
	second, err := replicas[1].client.ListMeshes(ctx, &sdk.ListMeshesInput{NextToken: first.NextToken})
	if err != nil {
		t.Fatalf("the token of one server at the other: %v", err)
	}
	var names []string
	for _, m := range second.Meshes {
		names = append(names, *m.MeshName)
	}
	if want := []string{"m3", "m4", "m5"}; !slices.Equal(names, want) || second.NextToken != nil {
		t.Errorf("second page: %q, token %v; want %q", names, second.NextToken, want)
	}

	dir := t.TempDir()
	s := openStore(t, store.Config{DataDir: dir, UnsafeNoFsync: true})
	h := serveAPI(t, s, dir)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"a"}`)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"b"}`)
	before, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{Limit: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	h = serveAPI(t, openStore(t, store.Config{DataDir: dir, UnsafeNoFsync: true}), dir)
	after, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{NextToken: before.NextToken})
	if err != nil || len(after.Meshes) != 1 || *after.Meshes[0].MeshName != "b" {
		t.Errorf("after a restart: %+v, %v", after, err)
	}
	if _, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{NextToken: first.NextToken}); err == nil {
		t.Error("the token of another store was taken")
	}
}
