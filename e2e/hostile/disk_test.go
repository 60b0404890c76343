//go:build root

package hostile

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// smallDisk mounts a file system of so many MiB.
func smallDisk(t testing.TB, mib int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all room that is left and returns the file that has it.
func fill(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zeros := make([]byte, 1<<20)
	for err == nil {
		_, err = file.Write(zeros)
	}
	if !strings.Contains(err.Error(), "no space left") {
		t.Fatal(err)
	}
	return path
}

// TestFullDisk: somebody fills the disk. Writes are refused with a reason, reads
// and proxies go on, keys can be taken back, a restart serves, and when there is
// room again everything is as before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 500)
	v := newVictim(t, meshtest.ServerOptions{DataDir: filepath.Join(disk, "data")})
	spare := v.ProxyCredentials(t, clientNode)
	connected := openDelta(t, v.dial(t, &v.client))
	if err := connected.Send(clusters(clientNode)); err != nil {
		t.Fatal(err)
	}
	if _, err := connected.Recv(); err != nil {
		t.Fatal(err)
	}
	create := func(name string) meshtest.Answer {
		return v.Send(t, http.MethodPut, "/v20190125/meshes", `{"meshName":"`+name+`","spec":{}}`)
	}
	filler := fill(t, disk)
	for range 50 {
		if a := create("refused"); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, "disk of the server is full") {
			t.Fatalf("a write on a full disk: %d %s", a.Status, a.Body)
		}
	}
	if _, err := v.Fairlead(t, "proxy", "credentials", "create", serverNode); err == nil || !strings.Contains(err.Error(), "disk of the server is full") {
		t.Errorf("new credentials on a full disk: %v", err)
	}
	v.healthy(t, 10*time.Second)
	if err := connected.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.Endpoint.URL(), ResourceNamesSubscribe: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := connected.Recv(); err != nil {
		t.Errorf("a connected proxy: %v", err)
	}
	if _, err := v.Get(t.Context(), "/readyz"); err != nil {
		t.Error(err)
	}
	if _, err := v.Fairlead(t, "proxy", "credentials", "delete", spare.ID); err != nil {
		t.Errorf("a key cannot be taken back: %v", err)
	}
	if n := strings.Count(v.Log(), "the disk is full"); n != 1 {
		t.Errorf("the log says %d times that the disk is full", n)
	}

	v.Kill()
	v.Restart(t)
	v.healthy(t, 10*time.Second)
	if a := create("refused"); a.Status != http.StatusServiceUnavailable {
		t.Errorf("after a restart: %d %s", a.Status, a.Body)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if a := create("taken"); a.Status != http.StatusOK {
		t.Errorf("with room again: %d %s", a.Status, a.Body)
	}
	if a := v.Send(t, http.MethodGet, "/v20190125/meshes/refused", ""); a.Status != http.StatusNotFound {
		t.Errorf("what was refused is there: %d %s", a.Status, a.Body)
	}
	v.healthy(t, 10*time.Second)
	if code := v.Terminate(t); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
}

// TestReadOnlyDisk: a data directory that cannot be written is refused at the
// start, with its name.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 500)
	v := newVictim(t, meshtest.ServerOptions{DataDir: filepath.Join(disk, "data")})
	v.Terminate(t)
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{v.DataDir, filepath.Join(disk, "new")} {
		code, log := startServer(t, dir)
		if code != 1 || !strings.Contains(log, "read-only file system") || !strings.Contains(log, dir) || strings.Contains(log, "goroutine ") {
			t.Errorf("%s: exit code %d\n%s", dir, code, log)
		}
	}
}

// TestTooSmallDisk: a new store on a disk without room is not begun.
func TestTooSmallDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(smallDisk(t, 64), "data")
	code, log := startServer(t, dir)
	if code != 1 || !strings.Contains(log, "disk is full") || strings.Contains(log, "goroutine ") {
		t.Errorf("exit code %d\n%s", code, log)
	}
}

// TestOtherUser: another user of the host cannot open the agent's sockets, read
// its files or those of the server, or see its environment.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	temporary, state := openDir(t), openDir(t)
	agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, ""), StateDir: filepath.Join(state, "state"), Env: []string{"TMPDIR=" + temporary}})
	agent.WaitReady(t)
	for what, script := range map[string]string{
		"the agent's sockets":   "ls " + temporary + "/*/",
		"Envoy's admin":         "cat " + temporary + "/*/*.sock",
		"the bootstrap":         "cat " + temporary + "/*/bootstrap.json",
		"the configuration":     "cat " + state + "/state/config.json",
		"the agent's secrets":   fmt.Sprintf("cat /proc/%d/environ", agent.PID()),
		"the agent's memory":    fmt.Sprintf("cat /proc/%d/mem", agent.PID()),
		"the root key":          "cat " + v.Credentials(),
		"the key-encrypion key": "cat " + v.DataDir + "/kek",
		"the store":             "ls " + v.DataDir + "/etcd",
		"the server's key":      "cat " + v.DataDir + "/server-ca.key",
	} {
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("another user can read %s: %.200s", what, out)
		}
	}
	// By a path that does not need the listing of a folder.
	found, err := filepath.Glob(temporary + "/*/admin.sock")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	dial := "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
	out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", dial, found[0]).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("another user opens Envoy's admin: %v %s", err, out)
	}
	if out, err := exec.Command("python3", "-c", dial, found[0]).CombinedOutput(); err != nil {
		t.Errorf("its own user cannot: %v %s", err, out) // the attempt was a real one
	}
}

// openDir is a folder that everybody may enter, in one that everybody may.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fairlead-open-")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // that is the point
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary folder
	return dir
}
