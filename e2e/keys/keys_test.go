// Package keys moves the key-encryption key of a running product from one place to
// another, backs it up and restores it, with AWS KMS by an implementation that is
// not ours, and looks everywhere for keys that must not be there. It follows
// docs/tasks/key-stores.md.
package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// keyStores is a server and the places that its key has been at.
type keyStores struct {
	env     []string // of the server and of commands
	dataDir string
	said    bytes.Buffer // by commands
}

// fairlead runs a command that works on the store itself.
func (k *keyStores) fairlead(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), meshtest.Binary(t), args...)
	cmd.Env = append(os.Environ(), k.env...)
	out, err := cmd.CombinedOutput()
	k.said.Write(out)
	return string(out), err
}

func (k *keyStores) mustFairlead(t *testing.T, args ...string) string {
	t.Helper()
	out, err := k.fairlead(t, args...)
	if err != nil {
		t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// serve runs a server with a key, does something, and returns its log.
func (k *keyStores) serve(t *testing.T, do func(*meshtest.Server), args ...string) {
	t.Helper()
	server := meshtest.StartServer(t, meshtest.ServerOptions{DataDir: k.dataDir, Args: args, Env: k.env, Debug: true})
	do(server)
	server.Terminate(t)
	k.said.WriteString(server.Log())
}

func secretFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newKMSKey makes a key in KMS and returns its ARN.
func newKMSKey(t *testing.T, endpoint string) string {
	t.Helper()
	client := kms.New(kms.Options{Region: "eu-west-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	made, err := client.CreateKey(context.Background(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(made.KeyMetadata.Arn)
}

// From a file to AWS KMS, to a passphrase, into a backup, and into a new store: the
// same credentials open each server, an old key none, and no key is seen anywhere.
func TestKeyStores(t *testing.T) {
	endpoint := meshtest.StartMoto(t)
	k := &keyStores{dataDir: filepath.Join(t.TempDir(), "data"), env: []string{
		"AWS_ENDPOINT_URL_KMS=" + endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true",
	}}
	atKMS, otherAtKMS := "aws-kms:"+newKMSKey(t, endpoint), "aws-kms:"+newKMSKey(t, endpoint)
	const phrase = "correct horse battery staple"
	phraseFile := secretFile(t, "passphrase", phrase+"\n")

	var key meshtest.Key
	k.serve(t, func(s *meshtest.Server) {
		s.Apply(t, "{mesh: m, spec: {}}\n---\n{virtualNode: a, spec: {}}")
		key = s.ProxyCredentials(t, "mesh/m/virtualNode/a")
		if out, err := k.fairlead(t, "kek", "rotate", "--data-dir", k.dataDir); err == nil || !strings.Contains(out, "in use by another server") {
			t.Errorf("rotate while the server runs: %v\n%s", err, out)
		}
	})
	file, err := os.ReadFile(filepath.Join(k.dataDir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	known := func(s *meshtest.Server) {
		out, err := s.Fairlead(t, "proxy", "credentials", "list")
		if err != nil || !strings.Contains(string(out), key.ID) {
			t.Errorf("the proxy's credentials are not there: %v\n%s", err, out)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := k.fairlead(t, append([]string{"server", "--data-dir", k.dataDir}, args...)...)
		if err == nil || !strings.Contains(out, "wrong key-encryption key") || !strings.Contains(out, want) {
			t.Errorf("server %v: %v\n%s", args, err, out)
		}
	}

	k.mustFairlead(t, "kek", "rotate", "--data-dir", k.dataDir, "--to-kek", atKMS)
	refused("the root key is wrapped by aws-kms")
	refused("the root key is encrypted with "+strings.TrimPrefix(atKMS, "aws-kms:"), "--kek", otherAtKMS)
	k.serve(t, known, "--kek", atKMS)

	k.mustFairlead(t, "kek", "rotate", "--data-dir", k.dataDir, "--kek", atKMS, "--to-kek", "passphrase:"+phraseFile)
	refused("the root key is wrapped by passphrase", "--kek", atKMS)
	refused("", "--kek", "passphrase:"+secretFile(t, "wrong", "another passphrase"))
	k.serve(t, func(s *meshtest.Server) {
		known(s)
		if _, err := s.Fairlead(t, "backup", "--output-file", backup); err != nil {
			t.Fatal(err)
		}
	}, "--kek", "passphrase:"+phraseFile)

	lost := k.dataDir
	k.dataDir = filepath.Join(t.TempDir(), "restored")
	if out, err := k.fairlead(t, "restore", "--data-dir", k.dataDir, "--kek", atKMS, backup); err == nil || !strings.Contains(out, "made with another key") {
		t.Errorf("restore with the key before: %v\n%s", err, out)
	}
	out := k.mustFairlead(t, "restore", "--data-dir", k.dataDir, "--kek", "passphrase:"+phraseFile, backup)
	if !strings.Contains(out, "not in its ledger") {
		t.Errorf("restore does not speak of the ledger:\n%s", out)
	}
	k.serve(t, known, "--kek", "passphrase:"+phraseFile)

	raw, err := hex.DecodeString(strings.TrimSpace(string(file)))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"the key of the file": raw, "the passphrase": []byte(phrase), "the proxy's secret": []byte(key.Secret)}
	for _, dir := range []string{lost, k.dataDir} {
		searchFiles(t, filepath.Join(dir, "etcd"), secrets)
	}
	searchFiles(t, backup, secrets)
	search(t, "what servers and commands said", k.said.Bytes(), secrets)
	if k.said.Len() < 1000 {
		t.Errorf("servers and commands said only %d bytes", k.said.Len())
	}
}

func searchFiles(t *testing.T, root string, secrets map[string][]byte) {
	t.Helper()
	files := 0
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		search(t, path, content, secrets)
		return err
	}); err != nil || files == 0 {
		t.Errorf("searched %d files of %s: %v", files, root, err)
	}
}

// search looks for secrets in every form that they may have.
func search(t *testing.T, where string, text []byte, secrets map[string][]byte) {
	t.Helper()
	for what, secret := range secrets {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
			base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
		} {
			if bytes.Contains(text, []byte(form)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}
