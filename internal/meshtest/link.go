package meshtest

import (
	"net"
	"sync"
	"testing"
)

// Link is a TCP connection between two programs that a test can cut. What
// connects to Address reaches the target.
type Link struct {
	Address string // 127.0.0.1:port

	mu     sync.Mutex
	target string
	state  linkState
	open   map[net.Conn]bool
	moved  *sync.Cond
}

type linkState int

const (
	linkUp linkState = iota
	linkCut
	linkFrozen
)

// NewLink forwards to a target (host:port).
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("make a link: %v", err)
	}
	l := &Link{Address: listener.Addr().String(), target: target, open: map[net.Conn]bool{}}
	l.moved = sync.NewCond(&l.mu)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go l.forward(conn)
		}
	}()
	t.Cleanup(func() {
		listener.Close() //nolint:errcheck // ends with the test
		l.Cut()
	})
	return l
}

// Cut ends all connections and refuses new ones, as a server that is gone.
func (l *Link) Cut() { l.set(linkCut) }

// Freeze lets connections stand and passes nothing on, as a network that drops
// packets.
func (l *Link) Freeze() { l.set(linkFrozen) }

// Restore passes on again, also what was held up.
func (l *Link) Restore() { l.set(linkUp) }

// Lead has new connections reach another target; those that stand stay where
// they are.
func (l *Link) Lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

func (l *Link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	if s == linkCut {
		for conn := range l.open {
			conn.Close() //nolint:errcheck // it is to be broken
		}
		clear(l.open)
	}
	l.moved.Broadcast()
}

// pass waits while the link is frozen and says whether it is up.
func (l *Link) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.state == linkFrozen {
		l.moved.Wait()
	}
	return l.state == linkUp
}

// keep remembers a connection, for Cut; false: the link is cut.
func (l *Link) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkCut {
		return false
	}
	l.open[conn] = true
	return true
}

func (l *Link) forward(from net.Conn) {
	defer from.Close()
	if !l.keep(from) || !l.pass() {
		return
	}
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	if !l.keep(to) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.copy(to, from) })
	both.Go(func() { l.copy(from, to) })
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, from)
	delete(l.open, to)
}

func (l *Link) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if !l.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return // io.EOF, or the connection is cut
		}
	}
}
