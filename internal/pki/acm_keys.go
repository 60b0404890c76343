package pki

import (
	"context"
	"log/slog"
	"sync"

	"github.com/fairlead/fairlead/internal/ca"
)

// pooledKeys is how many RSA keys are made ahead. A core makes some 16 a
// second, so that a burst of 50 requests would take 3 s without them. Making
// them costs one core some 4 s, once, and some 200 KiB of memory.
const pooledKeys = 64

// keyPool has RSA keys of 2048 bits ready. It begins to make them when they
// are likely to be needed.
type keyPool struct {
	ready  chan ca.PrivateKey
	needed chan struct{} // closed once they are
	once   sync.Once
}

func newKeyPool() *keyPool {
	return &keyPool{ready: make(chan ca.PrivateKey, pooledKeys), needed: make(chan struct{})}
}

// warm begins to make keys.
func (p *keyPool) warm() { p.once.Do(func() { close(p.needed) }) }

func (p *keyPool) warmed() bool {
	select {
	case <-p.needed:
		return true
	default:
		return false
	}
}

// fill makes keys until ctx ends, one at a time: requests come first.
func (p *keyPool) fill(ctx context.Context, log *slog.Logger) error {
	select {
	case <-p.needed:
	case <-ctx.Done():
		return nil
	}
	full := false
	for ctx.Err() == nil {
		if !full && len(p.ready) == cap(p.ready) {
			full = true
			log.DebugContext(ctx, "RSA keys are made ahead", "keys", cap(p.ready))
		}
		key, err := ca.GenerateKey(ca.RSA2048)
		if err != nil {
			return err
		}
		select {
		case p.ready <- key:
		case <-ctx.Done():
		}
	}
	return nil
}

// take is a new key, one that was made ahead if there is any.
func (p *keyPool) take(algorithm ca.KeyAlgorithm) (ca.PrivateKey, error) {
	if algorithm == ca.RSA2048 {
		p.warm()
		select {
		case key := <-p.ready:
			return key, nil
		default:
		}
	}
	return ca.GenerateKey(algorithm)
}
