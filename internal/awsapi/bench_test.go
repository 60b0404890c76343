package awsapi

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// BenchmarkVerify is all that comes before an operation is called; beside it
// what a cache of signing keys could save of it, which is too little for one.
func BenchmarkVerify(b *testing.B) {
	cfg := Config{Keys: testKeys{}, Region: testRegion, Account: testAccount, Now: func() time.Time { return signedAt }}
	m := signedMessage(b, "PUT", "/v20190125/meshes/m/virtualNodes", nodeBody)
	text := m.raw(nodeBody)
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		b.Fatal(err)
	}
	bodies := newBodies()
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Body = io.NopCloser(strings.NewReader(nodeBody))
			v, err := cfg.verify(r, bodies)
			if err != nil {
				b.Fatal(err)
			}
			v.release()
		}
	})
	b.Run("signing key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			key := []byte("AWS4" + rootCreds.SecretAccessKey)
			for _, part := range []string{"20261123", testRegion, "appmesh", terminator} {
				key = mac(key, part)
			}
		}
	})
}
