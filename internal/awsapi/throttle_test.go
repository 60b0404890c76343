package awsapi

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
)

// TestThrottle: each account has its own rates for reads and writes, and a
// second's worth of them at once.
func TestThrottle(t *testing.T) {
	throttle := newThrottle(Rates{Reads: 40, Writes: 8})
	now := signedAt
	took := func(account, action string, tries int) (n int) {
		for range tries {
			if err := throttle.take(account, action, now); err == nil {
				n++
			} else if e := err.(*api.Exception); e.Code != codeTooMany || e.Status != 429 {
				t.Fatalf("refused with %v", err)
			}
		}
		return n
	}
	for _, test := range []struct {
		wait            time.Duration
		account, action string
		want            int // of 100
	}{
		{0, "a", "DescribeMesh", 40},
		{0, "a", "ListMeshes", 0},    // the same share
		{0, "a", "CreateMesh", 8},    // another
		{0, "a", "GetAnything", 0},   // a read too
		{0, "a", "TagResource", 0},   // a write too
		{0, "b", "DescribeMesh", 40}, // another account
		{25 * time.Millisecond, "a", "DescribeMesh", 1},
		{25 * time.Millisecond, "a", "DeleteMesh", 0},
		{75 * time.Millisecond, "a", "DeleteMesh", 1},
		{500 * time.Millisecond, "a", "DescribeMesh", 24}, // with 100 ms from before
		{time.Hour, "a", "DescribeMesh", 40},              // what is not used is not saved
		{-time.Hour, "a", "DescribeMesh", 0},              // a clock that is set back…
		{time.Second, "a", "DescribeMesh", 40},            // …blocks nobody for longer than a second
	} {
		now = now.Add(test.wait)
		if got := took(test.account, test.action, 100); got != test.want {
			t.Errorf("%s by %s after %s: %d of 100, want %d", test.action, test.account, test.wait, got, test.want)
		}
	}
	if len(throttle.spent) != 3 {
		t.Errorf("%d shares are kept", len(throttle.spent))
	}
	throttle = newThrottle(Rates{})
	if got := took("a", "DescribeMesh", 100); got != 100 || len(throttle.spent) != 0 {
		t.Errorf("without rates: %d of 100, %d shares", got, len(throttle.spent))
	}
}

// TestThrottledInEveryProtocol: each client is told in the words that make it
// slow down.
func TestThrottledInEveryProtocol(t *testing.T) {
	e := newThrottle(Rates{Reads: 0.5}).take("a", "DescribeMesh", signedAt).(*api.Exception)
	for p, want := range map[protocol]string{restJSON: "429 TooManyRequestsException", jsonRPC: "400 ThrottlingException", rpcCBOR: "400 ThrottlingException", formQuery: "400 Throttling"} {
		code, status, _ := p.error(e, "id")
		if got := formatInt(int64(status)) + " " + code; got != want {
			t.Errorf("protocol %d: %s, want %s", p, got, want)
		}
	}
}

// TestStrangersAreNotCounted: who cannot sign cannot spend an account's rate.
func TestStrangersAreNotCounted(t *testing.T) {
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }, Rates: Rates{Reads: 1, Writes: 1}})
	for range 10 {
		m := signedMessage(t, "GET", "/v20190125/meshes", "")
		flipLast(m)
		if a := m.send(t, mux); a.code != codeBadSignature {
			t.Fatalf("%d %s", a.status, a.code)
		}
		if a := messageBy(t, proxyCreds, "GET /v20190125/meshes", "").send(t, mux); a.code != codeAccessDenied {
			t.Fatalf("%d %s", a.status, a.code)
		}
	}
	for _, want := range []string{"", codeTooMany} {
		if a := signedMessage(t, "GET", "/v20190125/meshes", "").send(t, mux); a.code != want {
			t.Errorf("got %d %s, want %s", a.status, a.code, want)
		}
	}
}

const throttledBoto = `
import sys, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:]
def client(mode, attempts):
    return boto3.client("appmesh", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
                        config=Config(retries={"mode": mode, "total_max_attempts": attempts}))
for mode in ["standard", "legacy"]:
    c, retried = client(mode, 10), 0
    for _ in range(30):
        retried += c.list_meshes()["ResponseMetadata"]["RetryAttempts"]
    print(mode, "all answered", retried > 0)
c = client("standard", 1)
try:
    for _ in range(1000):
        c.list_meshes()
except c.exceptions.TooManyRequestsException as e:
    print(e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["Error"]["Message"])
`

// TestBoto3SlowsDown: an SDK that makes more requests than it may gets all of
// them answered by its own retries. The server's clock moves with the requests,
// by less than each costs.
func TestBoto3SlowsDown(t *testing.T) {
	began := time.Now()
	var requests atomic.Int64
	mux := newTestMux(Config{Rates: Rates{Reads: 5}, Now: func() time.Time { return began.Add(150 * time.Millisecond * time.Duration(requests.Load())) }})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	cmd := exec.CommandContext(t.Context(), venv+"python", "-c", throttledBoto, server.URL, rootCreds.AccessKeyID, rootCreds.SecretAccessKey)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("boto3 (make tools installs it): %v\n%s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), "standard all answered True\nlegacy all answered True\n429 Rate exceeded"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
