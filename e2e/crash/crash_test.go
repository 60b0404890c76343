// Package crash kills servers and cuts their power while clients use the API,
// and holds what the clients saw against a model of it. It follows
// facts/reliability.md 4A (A1, A2, A4).
package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// run is one server after the other under the same clients.
type run struct {
	binary string
	dir    string // the server's data
	log    string
	flags  []string
	random *rand.Rand

	recorder *recorder
	workers  []*worker
	starts   []time.Duration
}

func newRun(t *testing.T, binary, dir string, seed uint64, flags ...string) *run {
	r := &run{
		binary: binary, dir: dir, flags: flags,
		log:      filepath.Join(t.TempDir(), "log"),
		random:   rand.New(rand.NewPCG(seed, 0)),
		recorder: &recorder{begun: time.Now()},
	}
	for id := range clients {
		r.workers = append(r.workers, &worker{id: id, random: rand.New(rand.NewPCG(seed, uint64(1+id))), recorder: r.recorder})
	}
	return r
}

func (r *run) start(ctx context.Context) (*process, error) {
	begun := time.Now()
	p, err := start(ctx, r.binary, r.dir, r.log, r.flags...)
	if err != nil {
		return nil, err
	}
	r.starts = append(r.starts, time.Since(begun))
	if len(r.starts) == 1 {
		_, err = p.client.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: aws.String(meshName)})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create mesh: %w", err), p.kill())
		}
	}
	return p, nil
}

// life starts a server, lets the clients work on it for a while, and ends it as
// end does, which must leave it dead.
func (r *run) life(ctx context.Context, end func(*process) error) error {
	p, err := r.start(ctx)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for _, w := range r.workers {
		group.Go(func() { w.work(ctx, p.client) })
	}
	lived := time.NewTimer(100*time.Millisecond + time.Duration(r.random.Int64N(int64(900*time.Millisecond))))
	select {
	case <-lived.C:
	case <-ctx.Done():
	}
	err = end(p)
	r.recorder.serverEnded()
	group.Wait()
	r.recorder.serverEnded() // of requests that came when it was dead
	return err
}

// verdict starts the server a last time and says what was lost.
func (r *run) verdict(ctx context.Context) error {
	p, err := r.start(ctx)
	if err != nil {
		return err
	}
	look := &worker{id: clients, recorder: r.recorder}
	for i := range names {
		op := operation{verb: "describe", name: fmt.Sprint("n", i)}
		record := look.record(op)
		record.Output = look.send(ctx, p.client, op)
		r.recorder.add(record)
	}
	missing, err := r.recorder.missing(ctx, p.client)
	err = errors.Join(err, p.kill())
	r.recorder.serverEnded()
	if len(missing) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d acknowledged nodes are lost: %s …", len(missing), len(r.recorder.ledger), missing[0]))
	}
	return errors.Join(err, linearizable(r.recorder.history), errors.Join(r.recorder.faults...))
}

// report logs the figures of a run.
func (r *run) report(t *testing.T) {
	t.Helper()
	unanswered := 0
	for _, op := range r.recorder.history {
		if op.Output.(answer).what == "" {
			unanswered++
		}
	}
	var sum, longest time.Duration
	for _, d := range r.starts {
		sum += d
		longest = max(longest, d)
	}
	t.Logf("%d operations, %d without an answer, %d nodes in the ledger; %d starts, mean %v, longest %v",
		len(r.recorder.history), unanswered, len(r.recorder.ledger), len(r.starts),
		(sum / time.Duration(len(r.starts))).Round(time.Millisecond), longest.Round(time.Millisecond))
}

// The server is killed with SIGKILL, 0.1 to 1 s after it got ready, 30 times.
// The next start serves again, no acknowledged write is lost, and one order of
// all operations explains every answer.
func TestKilledServerLosesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRun(t, binary(t), filepath.Join(t.TempDir(), "data"), seed)
	for range 30 * meshtest.Soak(t) {
		if err := r.life(t.Context(), (*process).kill); err != nil {
			t.Fatalf("%v\n%s", err, tail(r.log))
		}
	}
	if err := r.verdict(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, tail(r.log))
	}
	r.report(t)
}
