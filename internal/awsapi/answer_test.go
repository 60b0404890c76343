package awsapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
)

// TestStream: an answer in pieces comes whole or is seen not to be; what goes wrong
// before its first byte is answered as every error is.
func TestStream(t *testing.T) {
	t.Parallel()
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
	piece := strings.Repeat("x", 64<<10)
	for name, stream := range map[string]Stream{
		"whole": func(_ context.Context, w io.Writer) error {
			for range 100 {
				if _, err := io.WriteString(w, piece); err != nil {
					return err
				}
			}
			return nil
		},
		"refused": func(context.Context, io.Writer) error {
			return api.Exceptionf("ConflictException", http.StatusConflict, "not now")
		},
		"broken": func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, piece)
			return errors.Join(err, errors.New("the store is gone"))
		},
		"buggy":     func(context.Context, io.Writer) error { panic("a bug") },
		"buggylate": func(_ context.Context, w io.Writer) error { io.WriteString(w, piece); panic("a bug") },
	} {
		mux.HandleOperator(http.MethodGet, "/fairlead/v1/"+name, "Get", func(context.Context, *Request) (any, error) { return stream, nil })
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(mux, nil)
	s.Start()
	t.Cleanup(s.Close)
	for _, test := range []struct {
		path, contentType string
		status, size      int
		broken            bool
	}{
		{"whole", "application/octet-stream", http.StatusOK, 100 * len(piece), false},
		{"refused", "application/json", http.StatusConflict, 0, false},
		{"broken", "application/octet-stream", http.StatusOK, 0, true},
		{"buggy", "application/json", http.StatusInternalServerError, 0, false},
		{"buggylate", "application/octet-stream", http.StatusOK, 0, true},
	} {
		conn := dialTCP(t, s.Listener.Addr().String())
		if _, err := conn.Write(signedMessage(t, "GET", "/fairlead/v1/"+test.path, "").raw("")); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", test.path, err)
		}
		body, err := io.ReadAll(response.Body)
		if test.broken != (err != nil) || test.size > 0 && len(body) != test.size {
			t.Errorf("%s: %d bytes, %v", test.path, len(body), err)
		}
		if response.StatusCode != test.status || response.Header.Get("Content-Type") != test.contentType {
			t.Errorf("%s: %d %s", test.path, response.StatusCode, response.Header.Get("Content-Type"))
		}
		conn.Close()
	}
}
