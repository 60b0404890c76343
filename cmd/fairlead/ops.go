package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

// readyTimeout bounds the question whether the store answers.
const readyTimeout = 3 * time.Second

// operations serves what load balancers and monitoring ask, to anybody who can
// reach its address.
type operations struct {
	version string
	store   atomic.Pointer[store.Store] // set while the server serves
	keys    func() error                // whether authorities can sign; set before the server serves
}

func (o *operations) serving(s *store.Store) { o.store.Store(s) }

func (o *operations) end() { o.store.Store(nil) }

func (o *operations) handler(metrics *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", o.ready)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, o.version) })
	return mux
}

// withPublisher gives what begins with /crl/ or /ocsp/ to the authorities'
// publisher: with its path as it is, and under whatever name a certificate has
// it, since what it says is public and signed.
func withPublisher(publisher, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/crl/") || strings.HasPrefix(r.URL.Path, "/ocsp/") {
			publisher.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ready is true while the store is loaded and answers, authorities can sign and
// the server does not end.
func (o *operations) ready(w http.ResponseWriter, r *http.Request) {
	s := o.store.Load()
	if s == nil {
		http.Error(w, "not serving", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.Ping(ctx); err != nil {
		http.Error(w, "the store does not answer", http.StatusServiceUnavailable)
		return
	}
	if err := o.keys(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// measured counts and times the API's answers.
func measured(next http.Handler, metrics prometheus.Registerer) http.Handler {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "fairlead_api_request_duration_seconds", Help: "Answers of the API, by HTTP method and status.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "code"})
	metrics.MustRegister(seconds)
	return promhttp.InstrumentHandlerDuration(seconds, next)
}

// checkHost refuses requests that a browser was tricked into sending: on a
// loopback address only loopback names and IP addresses are meant, whatever
// some page's name resolves to. No answer ever allows other origins.
func checkHost(next http.Handler, address net.Addr) http.Handler {
	if !isLoopback(address) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if net.ParseIP(host) == nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") && !strings.HasSuffix(host, ".amazonaws.com") {
			awsapi.Refuse(w, r, api.Exceptionf("AccessDeniedException", http.StatusForbidden, "this address serves localhost and IP addresses only"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
