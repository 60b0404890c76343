package outage

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// stream is requests of one kind, at a steady rate.
type stream struct {
	name  string
	url   string
	host  string // virtual service and port
	rate  int    // requests per second
	fresh bool   // a new connection for each request; otherwise they are kept alive
}

// streams are the requests that every case runs under: TLS from both sides
// over connections that last, and over new ones; plaintext; and TCP, where each
// new connection of the application is a new handshake between the Envoys.
func (s *scene) streams() []stream {
	return []stream{
		{"mutual TLS, kept alive", s.client.At(15001, "/load"), "hello.local:8080", 100, false},
		{"mutual TLS, new connections", s.client.At(15001, "/load"), "hello.local:8080", 50, true},
		{"plaintext, kept alive", s.client.At(15001, "/load"), "plain.local:8081", 50, false},
		{"TCP, a handshake each", s.client.At(rawPort, "/load"), "raw.local", 50, true},
	}
}

const (
	workers      = 4               // of each stream
	requestLimit = 8 * time.Second // longer than this is a failed request
	linger       = time.Second     // the load goes on after the last event of a case
)

// load is running requests.
type load struct {
	began time.Time
	end   chan struct{}
	group sync.WaitGroup
	tally []*tally
}

// tally is what became of one stream.
type tally struct {
	stream
	mu      sync.Mutex
	served  int
	slowest time.Duration
	failed  []failure
}

type failure struct {
	began, ended time.Time
	why          error
}

// startLoad begins to send requests. Whoever starts a load stops it.
func startLoad(streams ...stream) *load {
	l := &load{began: time.Now(), end: make(chan struct{})}
	for _, s := range streams {
		t := &tally{stream: s}
		l.tally = append(l.tally, t)
		for range workers {
			l.group.Go(func() { t.run(l.end) })
		}
	}
	return l
}

// run is one worker. It sends a request at each tick, and none twice.
func (t *tally) run(end <-chan struct{}) {
	transport := &http.Transport{DisableKeepAlives: t.fresh, DialContext: (&net.Dialer{Timeout: requestLimit}).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: requestLimit}
	tick := time.NewTicker(time.Second * workers / time.Duration(t.rate))
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		began := time.Now()
		why := t.send(client)
		ended := time.Now()
		t.mu.Lock()
		if why != nil {
			t.failed = append(t.failed, failure{began, ended, why})
		} else {
			t.served++
			t.slowest = max(t.slowest, ended.Sub(began))
		}
		t.mu.Unlock()
	}
}

// send sends one request. A body that cannot be read again keeps Go's client
// from sending it a second time where the connection has ended.
func (s stream) send(client *http.Client) error {
	request, err := http.NewRequest(http.MethodPost, s.url, io.NopCloser(strings.NewReader("x")))
	if err != nil {
		return err
	}
	request.Host, request.ContentLength = s.host, 1
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != appName {
		return fmt.Errorf("answer %d %.100q", response.StatusCode, body)
	}
	return nil
}

// stop ends the load and fails the test for each stream of which a request has
// failed, or that was not really there.
func (l *load) stop(t testing.TB) {
	t.Helper()
	l.stopAllowing(t, time.Time{}, time.Time{})
}

// stopAllowing is stop where requests may fail between two moments.
func (l *load) stopAllowing(t testing.TB, from, to time.Time) {
	t.Helper()
	<-time.After(linger)
	close(l.end)
	l.group.Wait()
	took := time.Since(l.began)
	for _, c := range l.tally {
		bad := 0
		for _, f := range c.failed {
			if f.ended.After(from) && f.ended.Before(to) {
				continue
			}
			if bad++; bad <= 3 {
				t.Errorf("%s: a request failed %.2f s after the begin of the load, for %.2f s: %v", c.name,
					f.began.Sub(l.began).Seconds(), f.ended.Sub(f.began).Seconds(), f.why)
			}
		}
		if bad > 0 {
			t.Errorf("%s: %d of %d requests failed", c.name, bad, c.served+len(c.failed))
		}
		// A third of the rate is enough to be a load, on a machine that does
		// other things too.
		if least := int(took.Seconds()*float64(c.rate)) / 3; c.served+len(c.failed) < least {
			t.Errorf("%s: only %d requests in %s, want %d", c.name, c.served, took, least)
		}
		t.Logf("%s: %d served, %d failed where they might, slowest %s", c.name, c.served, len(c.failed)-bad, c.slowest.Round(time.Millisecond))
	}
}

// lastFailure is when the last failed request ended; zero: none failed.
func (l *load) lastFailure() (last time.Time) {
	for _, c := range l.tally {
		c.mu.Lock()
		for _, f := range c.failed {
			if f.ended.After(last) {
				last = f.ended
			}
		}
		c.mu.Unlock()
	}
	return last
}

// get sends one request outside of a load.
func (s *scene) get(host, path string) error {
	request, err := http.NewRequest(http.MethodGet, s.client.At(15001, path), nil)
	if err != nil {
		return err
	}
	request.Host = host
	status, body, err := meshtest.Do(request)
	if err == nil && (status != http.StatusOK || body != appName) {
		err = fmt.Errorf("%s%s: answer %d %.200q", host, path, status, body)
	}
	return err
}

// handshakes are those that web's Envoy has counted.
func (s *scene) handshakes(t testing.TB) int64 {
	t.Helper()
	const name = "listener.0.0.0.0_15000.ssl.handshake"
	counters, err := s.web.Counters(t.Context(), `ssl\.handshake$`)
	if err != nil || counters[name] == 0 {
		t.Errorf("no counter %s at web: %v", name, err)
	}
	return counters[name]
}
