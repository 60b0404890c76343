package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/bench/apiload"
)

// What is done to the API, and the baseline.
const (
	opEtcd     = "bare etcd transaction"
	opHTTP     = "the same over bare HTTP"
	opCreate   = "Create"
	opDescribe = "Describe"
	opList     = "List of 1,000"
)

var apiOps = []string{opEtcd, opHTTP, opCreate, opDescribe, opList}

// apiClients are the numbers of clients.
var apiClients = []int{1, 8, 64}

const (
	listed = 1000
	// recordSize and changeSize are what a Create of createBody writes: the spec
	// and some 400 bytes of metadata and token, and who did what when.
	recordSize = 800
	changeSize = 120
	listMesh   = "listed"
	// createIn is over how many meshes a round of Creates is spread. App Mesh had
	// 200 virtual nodes in a mesh; thousands would measure a mesh that nobody has.
	createIn = 16
)

// apiRun is one round of one operation.
type apiRun struct {
	op      string
	clients int
}

// apiRuns are the rounds of each, in the order in which they were made.
type apiRuns map[apiRun][]apiload.Result

// median is the median over the rounds of a figure.
func (runs apiRuns) median(op string, clients int, figure func(apiload.Result) float64) float64 {
	var v []float64
	for _, round := range runs[apiRun{op, clients}] {
		v = append(v, figure(round))
	}
	return middle(v)
}

// middle is the median.
func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func perSecond(r apiload.Result) float64 { return r.PerSecond }

// share is how a Create's rate stands to that of a baseline just before it: the
// median over the rounds.
func (runs apiRuns) share(baseline string, clients int) float64 {
	var v []float64
	for i, bare := range runs[apiRun{baseline, clients}] {
		v = append(v, runs[apiRun{opCreate, clients}][i].PerSecond/bare.PerSecond)
	}
	return middle(v)
}

// api measures the API with its store on the disk, and a bare etcd beside it,
// turn by turn.
func (r *results) apiRun(ctx context.Context, w workplace) error {
	fmt.Fprintln(w.progress, "--- API")
	f, err := startServer(ctx, w)
	if err != nil {
		return err
	}
	defer f.stop()
	bare, err := start(ctx, filepath.Join(w.out, "bareetcd.log"), w.etcd, "-dir", filepath.Join(w.out, "bareetcd-data"),
		"-record", fmt.Sprint(recordSize), "-change", fmt.Sprint(changeSize))
	if err != nil {
		return err
	}
	defer bare.stop()
	if err := fillListMesh(ctx, &f.client); err != nil {
		return err
	}
	r.api = apiRuns{}
	for round := range r.plan.apiRounds {
		for _, clients := range apiClients {
			for _, op := range apiOps {
				result, err := measureAPI(ctx, f, bare.addr["admin"], op, clients, r.plan.apiLength, round)
				if err != nil {
					return fmt.Errorf("%s with %d clients: %w", op, clients, err)
				}
				fmt.Fprintf(w.progress, "%-22s %3d clients %8.0f/s p50 %.2f p99 %.2f ms\n", op, clients, result.PerSecond, result.Ms.P50, result.Ms.P99)
				run := apiRun{op, clients}
				r.api[run] = append(r.api[run], result)
			}
		}
	}
	return nil
}

func measureAPI(ctx context.Context, f *fairlead, bare, op string, clients int, length time.Duration, round int) (apiload.Result, error) {
	if op == opEtcd {
		return bareEtcd(ctx, bare, clients, length)
	}
	meshes := make([]string, createIn)
	for i := range meshes {
		meshes[i] = fmt.Sprintf("created-%d-%d-%d", round, clients, i)
		if op != opCreate {
			continue
		}
		if err := f.do(ctx, http.MethodPut, "/v20190125/meshes", map[string]any{"meshName": meshes[i]}, nil); err != nil {
			return apiload.Result{}, err
		}
	}
	key := apiload.Key{ID: f.key.AccessKeyID, Secret: f.key.SecretAccessKey, Region: region, Service: "appmesh"}
	server := f.url
	if op == opHTTP {
		server = bare
	}
	var opened []*apiload.Client
	result, err := apiload.Measure(clients, length, func(i int) (apiload.Worker, error) {
		c, err := apiload.Dial(strings.TrimPrefix(server, "http://"), key)
		if err != nil {
			return nil, err
		}
		opened = append(opened, c)
		switch op {
		case opHTTP:
			return transactor(c)
		case opCreate:
			return creator(c, meshes, i)
		case opDescribe:
			return describer(c, i), nil
		}
		return lister(c), nil
	})
	for _, c := range opened {
		err = errors.Join(err, c.Close())
	}
	return result, err
}

func bareEtcd(ctx context.Context, admin string, clients int, length time.Duration) (result apiload.Result, err error) {
	where := fmt.Sprintf("%s/run?clients=%d&length=%s", admin, clients, length)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, nil)
	if err != nil {
		return result, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return result, fmt.Errorf("bareetcd: %s", resp.Status)
	}
	return result, json.NewDecoder(resp.Body).Decode(&result)
}

// createBody is what an SDK sends to create a virtual node.
func createBody(name string) ([]byte, error) {
	return json.Marshal(map[string]any{"virtualNodeName": name, "clientToken": "token-of-" + name,
		"spec": nodeSpec(name+".bench.local", []string{serviceName(1), serviceName(2)})})
}

// creator makes one node after the other. What they have in common is written
// once: how fast a client writes JSON is not what is measured.
func creator(c *apiload.Client, meshes []string, i int) (apiload.Worker, error) {
	const name = "THE-NAME"
	template, err := createBody(name)
	if err != nil {
		return nil, err
	}
	n := 0
	return func() error {
		n++
		body := bytes.ReplaceAll(template, []byte(name), fmt.Appendf(nil, "node-%d-%d", i, n))
		_, err := c.Do(apiload.Request{Method: http.MethodPut, Path: "/v20190125/meshes/" + meshes[n%len(meshes)] + "/virtualNodes", Body: body})
		return err
	}, nil
}

// transactor sends what a creator does to where nobody reads it.
func transactor(c *apiload.Client) (apiload.Worker, error) {
	body, err := createBody("node")
	return func() error {
		_, err := c.Do(apiload.Request{Method: http.MethodPut, Path: "/transact", Body: body})
		return err
	}, err
}

func describer(c *apiload.Client, i int) apiload.Worker {
	return func() error {
		i = (i + 7) % listed
		_, err := c.Do(apiload.Request{Method: http.MethodGet, Path: fmt.Sprintf("/v20190125/meshes/%s/virtualNodes/node-%d", listMesh, i)})
		return err
	}
}

// lister reads all pages; a page has at most 100.
func lister(c *apiload.Client) apiload.Worker {
	return func() error {
		found, query := 0, ""
		for {
			body, err := c.Do(apiload.Request{Method: http.MethodGet, Path: "/v20190125/meshes/" + listMesh + "/virtualNodes", Query: query})
			if err != nil {
				return err
			}
			// Only the token is read: a JSON parser would cost as much as the server.
			found += bytes.Count(body, []byte(`"virtualNodeName":`))
			_, rest, more := bytes.Cut(body, []byte(`"nextToken":"`))
			if !more {
				break
			}
			token, _, _ := bytes.Cut(rest, []byte(`"`))
			query = "nextToken=" + url.QueryEscape(string(token))
		}
		if found != listed {
			return fmt.Errorf("%d virtual nodes are listed, want %d", found, listed)
		}
		return nil
	}
}

func fillListMesh(ctx context.Context, c *client) error {
	if err := c.do(ctx, http.MethodPut, "/v20190125/meshes", map[string]any{"meshName": listMesh}, nil); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(16)
	for i := range listed {
		all.Go(func() error {
			name := fmt.Sprintf("node-%d", i)
			return c.do(ctx, http.MethodPut, "/v20190125/meshes/"+listMesh+"/virtualNodes",
				map[string]any{"virtualNodeName": name, "spec": nodeSpec(name+".bench.local", []string{serviceName(1), serviceName(2)})}, nil)
		})
	}
	return all.Wait()
}

// writeAPI is the page's part about the API.
func (r *results) writeAPI(b *bytes.Buffer) {
	fmt.Fprintf(b, `
## The API

Signed requests over kept-alive connections from this machine, one replica, the embedded store on the disk with fsync.
Create makes a virtual node, in one of %d meshes; Describe reads one of 1,000; a List reads the 1,000 in ten pages and
counts once. The bare etcd transaction has the conditions and writes of a Create, in process, measured just before it.
Over bare HTTP, the same is asked for by the same client of Go's HTTP server in the same process, without a signature, JSON or a
rule: what two processes on two cores leave of the first, and what a Create can come to at most. Medians over %d rounds of %s.

| | clients | per second | p50 ms | p99 ms |
|---|---:|---:|---:|---:|
`, createIn, r.plan.apiRounds, r.plan.apiLength)
	for _, op := range apiOps {
		for _, clients := range apiClients {
			fmt.Fprintf(b, "| %s | %d | %s | %s | %s |\n", op, clients, figure(r.api.median(op, clients, perSecond)),
				figure(r.api.median(op, clients, func(r apiload.Result) float64 { return r.Ms.P50 })),
				figure(r.api.median(op, clients, func(r apiload.Result) float64 { return r.Ms.P99 })))
		}
	}
}
