package meshtest

import (
	"os/exec"
	"regexp"
	"testing"
	"time"
)

// StartMoto starts moto, an implementation of AWS services that is not ours, and
// returns its URL. It forgets everything with the test.
func StartMoto(t testing.TB) string {
	t.Helper()
	ready := make(chan string, 1)
	running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)
	// It logs on standard error, and Start watches standard output.
	cmd := exec.Command("sh", "-c", `exec "$0" -u -m moto.server -H 127.0.0.1 -p 0 2>&1`, Tool(t, "python"))
	cmd.Env = environment()
	p := Start(t, "moto", cmd, func(line string) {
		if match := running.FindStringSubmatch(line); match != nil {
			ready <- match[1]
		}
	})
	select {
	case url := <-ready:
		return url
	case <-p.Exited():
		t.Fatalf("moto ended:\n%s", p.Log())
	case <-time.After(startWithin):
		t.Fatalf("moto was not ready within %s", startWithin)
	}
	return ""
}
