// Package demo runs the main job in front of the user: one server, a mesh made
// through the public API, an agent and a stock Envoy for each endpoint, real
// requests, and the verdict on every edge as the Envoys' own counters show it.
// It decides nothing about meshes; docs/quickstart.md does the same by hand.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead/fairlead/internal/discovery"
)

// Demo is one run.
type Demo struct {
	Fairlead string // the fairlead binary; it is started as server and agent
	Envoy    string // the Envoy binary
	Out      io.Writer
	Keep     bool // stay until the context ends
	Log      *slog.Logger

	dir       string // everything the run writes
	network   network
	processes *processes
	server    server
	dns       *discovery.Server
	proxies   []*proxy
}

// errVerdicts says that the counters do not show what they should.
var errVerdicts = errors.New("the verdicts were not all seen in Envoy's counters")

// Run does it all and leaves nothing behind: no process, no file. It returns
// nil only if every expected verdict was seen in the Envoys' counters.
func (d *Demo) Run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "fairlead-demo-"); err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	d.processes = &processes{logs: filepath.Join(d.dir, "logs"), log: d.Log}
	defer func() {
		d.processes.stopAll()
		if d.dns != nil {
			d.dns.Close()
		}
		if err != nil && ctx.Err() == nil {
			d.say("\nThe demo failed: %v\nWhat the programs wrote last:\n%s", err, d.processes.tails())
		}
		if removeErr := os.RemoveAll(d.dir); removeErr != nil && err == nil {
			err = fmt.Errorf("remove the demo's folder: %w", removeErr)
		}
	}()
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"1. A server on an embedded store", d.startServer},
		{"2. A mesh, through the App Mesh API", d.makeMesh},
		{"3. An agent and a stock Envoy for each endpoint", d.startProxies},
		{"4. Requests through the gateway", d.sendRequests},
		{"5. What Envoy counted", d.showCounters},
		{"6. Every edge, and why", d.showEdges},
	} {
		d.say("\n\033[1m%s\033[0m", step.title)
		began := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title[3:], err)
		}
		d.Log.Debug("step done", "step", step.title, "took", time.Since(began))
	}
	if d.Keep {
		d.sayNext()
		<-ctx.Done()
		d.say("\nStopping.")
	}
	return nil
}

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

func (d *Demo) sayNext() {
	d.say(`
Still running. Try, in another terminal:

  export AWS_ENDPOINT_URL=%s AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1 AWS_SHARED_CREDENTIALS_FILE=%s
  aws appmesh list-virtual-nodes --mesh-name %s
  curl http://%s/color
  curl -s 'http://%s/stats?filter=ssl.handshake'
  %s edges %s
  %s proxy list

Ctrl-C stops everything and leaves nothing behind.`,
		d.server.api, d.server.credentials, meshName, d.network.at(gatewayHost, listenerPort),
		d.network.at(gatewayHost, adminPort), d.Fairlead, meshName, d.Fairlead)
}
