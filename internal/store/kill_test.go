package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// envChild makes the test binary a process that writes to a store until it is
// killed. Its value is the data directory.
const envChild = "FAIRLEAD_TEST_STORE_CHILD"

// envRotate and envRestore make it one that rotates the key-encryption key of a
// data directory, or that restores the backup in it.
const (
	envRotate  = "FAIRLEAD_TEST_STORE_ROTATE"
	envRestore = "FAIRLEAD_TEST_STORE_RESTORE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		writeUntilKilled(dir)
	}
	var err error
	if dir := os.Getenv(envRotate); dir != "" {
		_, err = RotateKEK(context.Background(), Config{DataDir: dir}, Rotation{})
	} else if dir := os.Getenv(envRestore); dir != "" {
		err = restoreFile(context.Background(), childConfig(dir))
	} else {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// childConfig is of an embedded store, unless the directory has a file "endpoint"
// that names an external etcd.
func childConfig(dir string) Config {
	config := Config{DataDir: dir}
	if endpoint, err := os.ReadFile(filepath.Join(dir, "endpoint")); err == nil {
		config.Endpoints, config.KEKFile = []string{string(endpoint)}, filepath.Join(dir, "kek")
	}
	return config
}

func restoreFile(ctx context.Context, config Config) error {
	f, err := os.Open(filepath.Join(config.DataDir, "backup"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = Restore(ctx, config, f, func(int, int) {})
	return err
}

// killedAt runs this binary as a child and kills it after a while. It tells
// whether the child had finished before that.
func killedAt(t *testing.T, variable, dir string, after time.Duration) (finished bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(bounded(t), exe)
	child.Env = append(os.Environ(), variable+"="+dir)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	moment := time.AfterFunc(after, func() { child.Process.Kill() }) //nolint:errcheck // it may have ended
	err = child.Wait()
	moment.Stop()
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended with %v", err)
	}
	return err == nil
}

// writeUntilKilled makes nodes with eight writers, and prints the name of each
// one that was acknowledged.
func writeUntilKilled(dir string) {
	s, err := Open(context.Background(), Config{DataDir: dir, Account: account})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := nodeID(fmt.Sprintf("p%d-w%d-%d", os.Getpid(), w, i))
				if _, err := s.Write(context.Background(), func(tx *Tx) error {
					if _, err := Get[nodeSpec](tx, demo, id); !errors.Is(err, ErrNotFound) {
						return fmt.Errorf("node %s is there: %w", id.Name, err)
					}
					return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: id, Version: 1})
				}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println(id.Name)
				out.Unlock()
			}
		}()
	}
	select {}
}

// A server is killed with SIGKILL while it writes, six times. Everything that
// it acknowledged is there at the next start.
func TestKilledStoreKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for range 6 {
		child := exec.CommandContext(bounded(t), exe)
		child.Env = append(os.Environ(), envChild+"="+dir)
		child.Stderr = os.Stderr
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		before := len(acknowledged)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			acknowledged = append(acknowledged, lines.Text())
			if len(acknowledged) == before+300 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("child ended with %v", err)
		}
	}
	s := open(t, Config{DataDir: dir})
	there := map[string]bool{}
	if _, err := s.Read(bounded(t), func(tx *Tx) error {
		nodes, err := List[nodeSpec](tx, demo, mesh.KindVirtualNode, "")
		for _, n := range nodes {
			there[n.ID.Name] = true
			if c, ok := s.Change(demo, n.ID); !ok || c.Revision != n.Revision {
				t.Errorf("record %s of revision %d has change %+v", n.ID, n.Revision, c)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, name := range acknowledged {
		if !there[name] {
			lost++
		}
	}
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(there))
	if lost > 0 || len(acknowledged) < 6*300 {
		t.Errorf("%d of %d acknowledged writes are lost", lost, len(acknowledged))
	}
}

// A server is killed during its first start, at any moment of it. The next one
// starts as if nothing had been.
func TestFirstStartCanBeKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const kills = 40
	unfinished := 0
	for i := range kills {
		dir := t.TempDir()
		child := exec.CommandContext(bounded(t), exe)
		child.Env = append(os.Environ(), envChild+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// The moment is what is tested: from before the first file to after the last.
		moment := time.NewTimer(time.Duration(i) * 150 * time.Millisecond / kills)
		<-moment.C
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("child ended with %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "etcd")); err != nil {
			unfinished++
		}
		s := open(t, Config{DataDir: dir})
		credentials, err := os.ReadFile(filepath.Join(dir, "credentials"))
		if err != nil {
			t.Fatal(err)
		}
		id := strings.Fields(string(credentials))[3]
		if k, err := s.Key(bounded(t), id); err != nil || k.Principal.Kind != iam.Root {
			t.Errorf("credentials name %s, which is %+v, %v", id, k.Principal, err)
		}
		s.Close()
	}
	t.Logf("%d of %d first starts did not finish", unfinished, kills)
	if unfinished == 0 {
		t.Error("no first start was cut off")
	}
}
