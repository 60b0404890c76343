package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead/fairlead/internal/store"
)

// TestReady: no server is ready before it serves, while its authorities cannot
// sign, or when it ends.
func TestReady(t *testing.T) {
	s, err := store.Open(t.Context(), store.Config{DataDir: t.TempDir(), Account: "000000000000", UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var found error
	o := &operations{keys: func() error { return found }}
	handler := o.handler(prometheus.NewRegistry())
	want := func(status int, reason string) {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != status || got != reason {
			t.Errorf("%d %q, want %d %q", w.Code, got, status, reason)
		}
	}
	want(503, "not serving")
	o.serving(s)
	want(200, "ready")
	found = errors.New("no certificate authority can sign")
	want(503, "no certificate authority can sign")
	found = nil
	want(200, "ready")
	o.end()
	want(503, "not serving")
}
