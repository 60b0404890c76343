package hostile

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// plausible is a signature that is wrong in a way that only the key shows.
func plausible(now time.Time) string {
	date := now.UTC().Format("20060102T150405Z")
	return "X-Amz-Date: " + date + "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIAAAAAAAAAAAAAAAAA/" + date[:8] +
		"/us-east-1/appmesh/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=" + strings.Repeat("0", 64) + "\r\n"
}

// TestBodiesOfStrangers: a stranger's body must be read before its signature can
// be wrong. However many strangers, that takes little memory; small requests do
// not wait for it.
func TestBodiesOfStrangers(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	api := strings.TrimPrefix(v.API, "http://")
	const size = 4 << 20
	var all []net.Conn
	v.bounded(t, 250, func() {
		chunk := []byte(strings.Repeat("x", 64<<10))
		for i, conn := range connect(t, api, 200) {
			framing := fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
			if i%2 == 1 {
				framing = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)
			}
			if _, err := io.WriteString(conn, "PUT /v20190125/meshes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+plausible(time.Now())+framing); err != nil {
				t.Fatal(err)
			}
			// All but the last byte, as far as the server takes it at once.
			if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			for sent := 0; sent < size-len(chunk); sent += len(chunk) {
				if _, err := conn.Write(chunk); err != nil {
					break
				}
			}
			all = append(all, conn)
		}
		v.healthy(t, 10*time.Second)
	})
	closedWithin(t, all, 60*time.Second)
	// A large body of somebody with a key is taken again.
	name := strings.Repeat("x", 200_000)
	if a := v.Send(t, http.MethodPut, "/v20190125/meshes", `{"meshName":"big","spec":{},"tags":[{"key":"k","value":"`+name+`"}]}`); a.Status != http.StatusBadRequest {
		t.Errorf("a large body afterwards: %d %.200s", a.Status, a.Body)
	}
	v.noPanic(t)
}
