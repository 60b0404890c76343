// Package apiload puts load on Fairlead's API, or on anything else, and says
// how much it took: so many clients, each doing one thing after the other. Its
// HTTP client does no more than it must, since it runs on the cores of what it
// measures; its signatures are real. It decides nothing about what is measured.
package apiload

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead/fairlead/bench/loadrun"
)

// Result is what clients got done.
type Result struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"per_second"`
	// Ms is over all that was done, from just before to just after.
	Ms loadrun.Quantiles `json:"ms"`
}

// Worker is one client: it does the thing once.
type Worker func() error

// Measure lets clients work for a time, after a quarter of that time that does
// not count. newWorker is called once for each, before the clock starts. The
// first error ends it.
func Measure(clients int, length time.Duration, newWorker func(i int) (Worker, error)) (Result, error) {
	workers := make([]Worker, clients)
	for i := range workers {
		var err error
		if workers[i], err = newWorker(i); err != nil {
			return Result{}, fmt.Errorf("client %d: %w", i, err)
		}
	}
	from := time.Now().Add(length / 4)
	until := from.Add(length)
	took := make([][]float64, clients)
	errs := make([]error, clients)
	var all sync.WaitGroup
	for i, work := range workers {
		all.Go(func() { took[i], errs[i] = repeat(work, from, until) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	var ms []float64
	for _, t := range took {
		ms = append(ms, t...)
	}
	return Result{Clients: clients, PerSecond: float64(len(ms)) / length.Seconds(), Ms: loadrun.QuantilesOf(ms)}, nil
}

// repeat returns how many milliseconds each time took that ended between from
// and until.
func repeat(work Worker, from, until time.Time) ([]float64, error) {
	var ms []float64
	for began := time.Now(); began.Before(until); {
		if err := work(); err != nil {
			return nil, err
		}
		ended := time.Now()
		if ended.After(from) && ended.Before(until) {
			ms = append(ms, float64(ended.Sub(began).Microseconds())/1000)
		}
		began = ended
	}
	return ms, nil
}
