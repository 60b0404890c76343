package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
)

const (
	meshName = "crash"
	clients  = 8
	names    = 4 // few, so that the clients meet
	// callTime bounds a request, so that a client never hangs on a dead server.
	callTime = 10 * time.Second
)

// recorder is the history of everything that clients did.
type recorder struct {
	begun time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	open    []porcupine.Operation // without an answer; they end when the server does
	ledger  []string              // nodes made once and never deleted, all acknowledged
	faults  []error               // answers that no server should give
}

func (r *recorder) now() int64 { return time.Since(r.begun).Nanoseconds() }

func (r *recorder) add(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if op.Output.(answer).what == "" {
		r.open = append(r.open, op)
		return
	}
	op.Return = r.now()
	r.history = append(r.history, op)
}

// serverEnded says that the server is dead: what was not done by now never is.
func (r *recorder) serverEnded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range r.open {
		op.Return = r.now()
		r.history = append(r.history, op)
	}
	r.open = nil
}

func (r *recorder) made(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger = append(r.ledger, name)
}

func (r *recorder) fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
}

// worker is one client. It lives through many servers.
type worker struct {
	id       int
	random   *rand.Rand
	recorder *recorder
	count    int        // of values, tokens and ledger entries: all are unique
	again    *operation // what to repeat with the same token, because no answer came
	last     operation  // its newest write with a token
}

// work sends requests to one server until it gets no answer, or ctx ends.
func (w *worker) work(ctx context.Context, c *appmesh.Client) {
	for ctx.Err() == nil {
		if w.random.IntN(10) == 0 {
			if !w.enter(ctx, c) {
				return
			}
			continue
		}
		op := w.choose()
		record := w.record(op)
		got := w.send(ctx, c, op)
		record.Output = got
		w.recorder.add(record)
		if op.token != "" {
			w.last = op
		}
		if got.what == "" {
			if op.token != "" && w.random.IntN(2) == 0 {
				w.again = &op
			}
			return
		}
	}
}

// record begins the record of a request that is about to be sent.
func (w *worker) record(op operation) porcupine.Operation {
	return porcupine.Operation{ClientId: w.id, Input: op, Call: w.recorder.now()}
}

// choose picks the next request.
func (w *worker) choose() operation {
	if w.again != nil {
		op := *w.again
		w.again = nil
		return op
	}
	w.count++
	op := operation{name: fmt.Sprint("n", w.random.IntN(names))}
	unique := fmt.Sprintf("c%d-%d", w.id, w.count)
	switch n := w.random.IntN(100); {
	case n < 25:
		op.verb, op.token, op.value = "create", unique, unique+".local"
	case n < 55:
		op.verb, op.token, op.value = "update", unique, unique+".local"
	case n < 58 && w.last.verb == "update":
		// The token of the update before, for something else.
		op = w.last
		op.value = unique + ".local"
	case n < 70:
		op.verb = "delete"
	default:
		op.verb = "describe"
	}
	return op
}

// enter makes a node that nobody else ever touches. It returns false if no
// answer came.
func (w *worker) enter(ctx context.Context, c *appmesh.Client) bool {
	w.count++
	op := operation{verb: "create", name: fmt.Sprintf("ledger-%d-%d", w.id, w.count), token: fmt.Sprintf("l%d-%d", w.id, w.count), value: "ledger.local"}
	switch got := w.send(ctx, c, op); got.what {
	case "ok":
		w.recorder.made(op.name)
		return true
	case "":
		return false
	default:
		w.recorder.fault(fmt.Errorf("create of %s: %s", op.name, got.what))
		return true
	}
}

// send makes one request and says what was answered.
func (w *worker) send(ctx context.Context, c *appmesh.Client, op operation) answer {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var data *types.VirtualNodeData
	var err error
	switch op.verb {
	case "create":
		var out *appmesh.CreateVirtualNodeOutput
		if out, err = c.CreateVirtualNode(ctx, &appmesh.CreateVirtualNodeInput{
			MeshName: aws.String(meshName), VirtualNodeName: &op.name, ClientToken: &op.token, Spec: spec(op.value),
		}); err == nil {
			data = out.VirtualNode
		}
	case "update":
		var out *appmesh.UpdateVirtualNodeOutput
		if out, err = c.UpdateVirtualNode(ctx, &appmesh.UpdateVirtualNodeInput{
			MeshName: aws.String(meshName), VirtualNodeName: &op.name, ClientToken: &op.token, Spec: spec(op.value),
		}); err == nil {
			data = out.VirtualNode
		}
	case "delete":
		var out *appmesh.DeleteVirtualNodeOutput
		if out, err = c.DeleteVirtualNode(ctx, &appmesh.DeleteVirtualNodeInput{
			MeshName: aws.String(meshName), VirtualNodeName: &op.name,
		}); err == nil {
			data = out.VirtualNode
		}
	case "describe":
		var out *appmesh.DescribeVirtualNodeOutput
		if out, err = c.DescribeVirtualNode(ctx, &appmesh.DescribeVirtualNodeInput{
			MeshName: aws.String(meshName), VirtualNodeName: &op.name,
		}); err == nil {
			data = out.VirtualNode
		}
	}
	if err != nil {
		return w.refusal(op, err)
	}
	return answer{"ok", *data.Metadata.Version, hostname(data.Spec), *data.Metadata.Uid}
}

// refusal tells a definite answer from none.
func (w *worker) refusal(op operation, err error) answer {
	var notFound *types.NotFoundException
	var conflict *types.ConflictException
	var badRequest *types.BadRequestException
	var forbidden *types.ForbiddenException
	switch {
	case errors.As(err, &notFound):
		return answer{what: "not found"}
	case errors.As(err, &conflict):
		return answer{what: "conflict"}
	case errors.As(err, &badRequest), errors.As(err, &forbidden):
		w.recorder.fault(fmt.Errorf("%s of %s: %w", op.verb, op.name, err))
	}
	return answer{}
}

func spec(value string) *types.VirtualNodeSpec {
	return &types.VirtualNodeSpec{
		Listeners:        []types.Listener{{PortMapping: &types.PortMapping{Port: aws.Int32(8080), Protocol: types.PortProtocolHttp}}},
		ServiceDiscovery: &types.ServiceDiscoveryMemberDns{Value: types.DnsServiceDiscovery{Hostname: &value}},
	}
}

func hostname(s *types.VirtualNodeSpec) string {
	if dns, ok := s.ServiceDiscovery.(*types.ServiceDiscoveryMemberDns); ok {
		return *dns.Value.Hostname
	}
	return ""
}

// missing are the ledger's nodes that the API does not list.
func (r *recorder) missing(ctx context.Context, c *appmesh.Client) ([]string, error) {
	listed := map[string]bool{}
	pages := appmesh.NewListVirtualNodesPaginator(c, &appmesh.ListVirtualNodesInput{MeshName: aws.String(meshName)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list virtual nodes: %w", err)
		}
		for _, n := range page.VirtualNodes {
			listed[*n.VirtualNodeName] = true
		}
	}
	var missing []string
	for _, name := range r.ledger {
		if !listed[name] {
			missing = append(missing, name)
		}
	}
	return missing, nil
}
