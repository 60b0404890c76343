package awsapi

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/api"
)

// Rates are how many requests per second each account may make, in bursts of
// what it may make in a second. Zero: any number.
type Rates struct{ Reads, Writes float64 }

// throttle counts verified requests only, so its memory is bounded by the
// number of accounts.
type throttle struct {
	rates Rates
	mu    sync.Mutex
	spent map[share]time.Time
}

// share is what one account may take of one sort of requests.
type share struct {
	account string
	read    bool
}

// burst is how far an account may be ahead of its rate.
const burst = time.Second

func newThrottle(rates Rates) *throttle {
	return &throttle{rates: rates, spent: map[share]time.Time{}}
}

// take counts a request, or refuses it. spent is the time at which all that an
// account has taken would have been taken at its steady rate.
func (t *throttle) take(account, action string, now time.Time) error {
	s := share{account, isRead(action)}
	rate := t.rates.Writes
	if s.read {
		rate = t.rates.Reads
	}
	if rate <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	spent := t.spent[s]
	if spent.Before(now) {
		spent = now
	}
	if latest := now.Add(burst); spent.After(latest) { // the clock was set back
		spent = latest
	}
	t.spent[s] = spent
	next := spent.Add(time.Duration(float64(time.Second) / rate))
	if next.Sub(now) > burst {
		return api.Exceptionf(codeTooMany, http.StatusTooManyRequests, "Rate exceeded")
	}
	t.spent[s] = next
	return nil
}

// isRead tells operations that change nothing by their names.
func isRead(action string) bool {
	return strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "List") || strings.HasPrefix(action, "Get")
}
