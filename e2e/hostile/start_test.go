package hostile

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// startServer starts a server that is to fail, and returns its exit code and
// all that it wrote.
func startServer(t testing.TB, dataDir string, args ...string) (code int, log string) {
	t.Helper()
	cmd := exec.Command(meshtest.Binary(t), append([]string{"server", "--data-dir", dataDir,
		"--api-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0"}, args...)...)
	p := meshtest.Start(t, "server", cmd, nil)
	select {
	case <-p.Exited():
		return cmd.ProcessState.ExitCode(), p.Log()
	case <-time.After(30 * time.Second):
		p.Kill()
		return -1, p.Log() + "\n(it did not end)"
	}
}

// TestSecondServer: a data directory is one server's. The second says who has
// it, and the first does not notice.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(v.DataDir, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{v.DataDir, v.DataDir + "/.", link} {
		if code, log := startServer(t, dir); code != 1 || !strings.Contains(log, "in use by another server") || !strings.Contains(log, "--data-dir") {
			t.Errorf("%s: exit code %d\n%s", dir, code, log)
		}
	}
	v.healthy(t, 10*time.Second)
}

// TestBadKEK: a key-encryption key that is not the store's, or none, is refused
// at the start and changes nothing.
func TestBadKEK(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	v.Terminate(t)
	path := filepath.Join(v.DataDir, "kek")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := hex.EncodeToString([]byte(strings.Repeat("k", 32)))
	for name, test := range map[string]struct {
		make func() error
		says string
	}{
		"missing":     {func() error { return nil }, "is missing"},
		"empty":       {func() error { return os.WriteFile(path, nil, 0o600) }, "does not hold 32 bytes"},
		"short":       {func() error { return os.WriteFile(path, good[:30], 0o600) }, "does not hold 32 bytes"},
		"text":        {func() error { return os.WriteFile(path, []byte("a password"), 0o600) }, "does not hold 32 bytes"},
		"another":     {func() error { return os.WriteFile(path, []byte(other), 0o600) }, "wrong key-encryption key"},
		"a directory": {func() error { return os.Mkdir(path, 0o700) }, "directory"},
		"endless":     {func() error { return os.Symlink("/dev/zero", path) }, "does not hold 32 bytes"},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := test.make(); err != nil {
			t.Fatal(err)
		}
		code, log := startServer(t, v.DataDir)
		if code != 1 || !strings.Contains(log, test.says) || !strings.Contains(log, "kek") || strings.Contains(log, "goroutine ") {
			t.Errorf("%s: exit code %d, want %q in\n%s", name, code, test.says, log)
		}
		if strings.Contains(log, string(good[:20])) || strings.Contains(log, "a password") {
			t.Errorf("%s: the log has the key:\n%s", name, log)
		}
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	v.Restart(t)
	v.healthy(t, 10*time.Second)
}

// TestFilesOfTheServer: what the server writes is its user's alone, also under a
// careless umask; where somebody opened it to others, the server says so.
func TestFilesOfTheServer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	wrapper := script(t, "umask 000; exec "+meshtest.Binary(t)+` "$@"`)
	cmd := exec.Command(wrapper, "server", "--data-dir", dir, "--api-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0")
	ready := make(chan struct{}, 1)
	p := meshtest.Start(t, "server", cmd, func(line string) {
		if strings.HasPrefix(line, "ready ") {
			ready <- struct{}{}
		}
	})
	select {
	case <-ready:
	case <-p.Exited():
		t.Fatal(p.Log())
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not start")
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if d.Name() == "server-ca.pem" {
			want = 0o644 // agents' users read it
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: %s, want %s", path, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	p.Terminate(t)

	for _, name := range []string{"kek", "credentials", "server-ca.key"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil { //nolint:gosec // that is the point
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	v := meshtest.StartServer(t, meshtest.ServerOptions{DataDir: dir})
	for _, name := range []string{"kek", "credentials", "server-ca.key", dir} {
		warned := false
		for _, line := range strings.Split(v.Log(), "\n") {
			warned = warned || strings.Contains(line, "level=WARN") && strings.Contains(line, name) && strings.Contains(line, "others")
		}
		if !warned {
			t.Errorf("others can use %s, and the server does not say so:\n%s", name, v.Log())
		}
	}
}
