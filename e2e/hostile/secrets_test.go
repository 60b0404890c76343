package hostile

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// addFiles reads all files under a directory.
func addFiles(t testing.TB, texts map[string]string, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		texts[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// findSecret fails the test if a secret is in one of the texts, in any of the
// forms that programs write things in.
func findSecret(t testing.TB, texts map[string]string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if len(secret) < 16 {
			t.Fatalf("the secret %q is too short to be looked for", secret)
		}
		quoted, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		forms := map[string]string{
			"as it is": secret, "in base64": strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")[:len(secret)],
			"in base64 for URLs": strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(secret)), "=")[:len(secret)],
			"in hexadecimal":     hex.EncodeToString([]byte(secret)), "in a URL": url.QueryEscape(secret), "in JSON": strings.Trim(string(quoted), `"`),
			"its second half": secret[len(secret)/2:],
		}
		for name, text := range texts {
			for form, part := range forms {
				if at := strings.Index(text, part); at >= 0 {
					t.Errorf("%s has the secret %s: …%.80q…", name, form, text[max(0, at-40):])
				}
			}
		}
	}
}
