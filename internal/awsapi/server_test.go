package awsapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// fetch sends a signed request over a real connection and returns the status.
func fetch(t *testing.T, method, url string, body []byte) (int, string) {
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	r.Header.Set("Content-Type", "application/json")
	if err := v4.NewSigner().SignHTTP(t.Context(), rootCreds, r, hashOf(body), "appmesh", testRegion, time.Now()); err != nil {
		t.Error(err)
		return 0, ""
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return 0, ""
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(answer)
}

// TestLimitsOverTheWire: clients that send too much get an answer, not a broken
// connection.
func TestLimitsOverTheWire(t *testing.T) {
	server := serveTest(t, Config{})
	if status, body := fetch(t, "PUT", server.URL+"/v20190125/meshes", bytes.Repeat([]byte("x"), 10<<20)); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, "larger than 4194304 bytes") {
		t.Errorf("a body of 10 MB: %d %s", status, body)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v20190125/meshes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", MaxHeader+8192))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of more than %d bytes: %d", MaxHeader, response.StatusCode)
	}
}

// TestRequestsDoNotTouchEachOther: bugs, bad requests and good ones at once,
// each answered as if it were alone.
func TestRequestsDoNotTouchEachOther(t *testing.T) {
	server := serveTest(t, Config{})
	kinds := []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v20190125/meshes/m%d", "", 200},
		{"DELETE", "/v20190125/meshes/m%d", "", 500}, // panics
		{"GET", "/v20190125/meshes/absent?meshOwner=%012d", "", 404},
		{"PUT", "/v20190125/meshes/m%d/virtualNodes", nodeBody, 200},
		{"PUT", "/v20190125/meshes/m%d/virtualNodes", `{"spec":{"listeners":[null]}}`, 400},
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 25 {
				k := kinds[(worker+i)%len(kinds)]
				status, body := fetch(t, k.method, server.URL+fmt.Sprintf(k.path, i), []byte(k.body))
				if status != k.status {
					t.Errorf("%s %s: got %d %s, want %d", k.method, k.path, status, body, k.status)
				}
			}
		})
	}
	wg.Wait()
}

// TestClockIsCorrected: a client whose clock is wrong learns ours from the
// answer's Date, as the Go SDK does.
func TestClockIsCorrected(t *testing.T) {
	ahead := time.Now().Add(20 * time.Minute)
	server := serveTest(t, Config{Now: func() time.Time { return ahead }})
	out, err := goClient(server.URL, 3).ListMeshes(t.Context(), nil)
	if err != nil || len(out.Meshes) != 0 {
		t.Errorf("a client 20 minutes behind: %v", err)
	}
	if _, err := goClient(server.URL, 1).ListMeshes(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "Signature expired") {
		t.Errorf("without retries: %v", err)
	}
}
