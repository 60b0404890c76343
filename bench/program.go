package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/bench/loadrun"
)

const region = "us-east-1"

// program is a server that is being measured: Fairlead or a baseline. Its first
// line says "ready" and its addresses.
type program struct {
	cmd   *exec.Cmd
	addr  map[string]string // as the ready line names them
	ended chan error
}

// startWithin is how long a program has until it says that it is ready.
const startWithin = 60 * time.Second

func start(ctx context.Context, log string, path string, args ...string) (*program, error) {
	errs, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer errs.Close() // the program has its own
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &program{cmd: cmd, addr: map[string]string{}, ended: make(chan error, 1)}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if line, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				ready <- line
			}
		}
		p.ended <- cmd.Wait()
	}()
	select {
	case line := <-ready:
		for _, word := range strings.Fields(line) {
			key, value, _ := strings.Cut(word, "=")
			p.addr[key] = value
		}
		return p, nil
	case err := <-p.ended:
		return nil, fmt.Errorf("%s ended before it was ready (%w); see %s", filepath.Base(path), err, log)
	case <-time.After(startWithin):
		p.stop()
		return nil, fmt.Errorf("%s was not ready within %s; see %s", filepath.Base(path), startWithin, log)
	}
}

// stop ends the program and waits for it.
func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill() // as above
		<-p.ended
	}
}

// fairlead is a running Fairlead server with the benchmark's mesh.
type fairlead struct {
	*program
	client
	ca string
}

// client calls the API with the root key.
type client struct {
	url string
	key aws.Credentials
}

// startFairlead starts a server and makes the benchmark's mesh.
func startFairlead(ctx context.Context, w workplace, r reach) (*fairlead, error) {
	f, err := startServer(ctx, w)
	if err != nil {
		return nil, err
	}
	if err := makeMesh(ctx, &f.client, r); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// serverLog is the file of the newest server's log.
const serverLog = "fairlead.log"

func startServer(ctx context.Context, w workplace, flags ...string) (*fairlead, error) {
	dir, err := os.MkdirTemp(w.out, "data-")
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, filepath.Join(w.out, serverLog), w.fairlead, append([]string{"server", "--data-dir", dir,
		"--api-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0"}, flags...)...)
	if err != nil {
		return nil, err
	}
	f := &fairlead{program: p, ca: filepath.Join(dir, "server-ca.pem")}
	f.url = p.addr["api"]
	if !strings.Contains(f.url, "://") {
		f.url = "http://" + f.url
	}
	loaded, err := config.LoadSharedConfigProfile(ctx, "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{filepath.Join(dir, "credentials")}, nil
	})
	if err != nil {
		f.stop()
		return nil, err
	}
	f.key = loaded.Credentials
	return f, nil
}

// do calls an operation with a JSON body and reads the JSON answer into out,
// unless that is nil.
func (c *client) do(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	service := "appmesh"
	if strings.HasPrefix(path, "/fairlead/") {
		service = "fairlead"
	}
	hash := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, c.key, req, hex.EncodeToString(hash[:]), service, region, time.Now()); err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// identities makes a key for each of n proxies, spread evenly over the virtual
// nodes that are given.
func (c *client) identities(ctx context.Context, n int, nodes []string) ([]loadrun.Identity, error) {
	ids := make([]loadrun.Identity, n)
	var all errgroup.Group
	all.SetLimit(16)
	for i := range ids {
		all.Go(func() error {
			resource := resourceOf(nodes[i%len(nodes)])
			err := c.do(ctx, http.MethodPost, "/fairlead/v1/proxy-credentials", map[string]string{"resource": resource}, &ids[i])
			ids[i].Resource = resource
			return err
		})
	}
	return ids, all.Wait()
}

func allNodes() []string {
	var names []string
	for i := range endpoints {
		names = append(names, nodeName(i))
	}
	return names
}

// load runs xdsload against a server.
type load struct {
	name       string // of the files it leaves in the out folder
	addr       string
	pid        int
	ca         string
	n          int
	mode       string // delta or sotw
	types      string
	identities []loadrun.Identity
	changes    []loadrun.Change
	key        aws.Credentials // signs the changes, if there is one
	rounds     int
	warmup     int
	once       bool // disturbed rounds are not made again
	metadata   string
	reconnect  bool
	dump       string
	settle     time.Duration
	pause      time.Duration
}

// run returns what xdsload reports, as far as it got, and why it failed.
func (l load) run(ctx context.Context, w workplace) (*loadrun.Report, error) {
	file := func(kind string) string { return filepath.Join(w.out, l.name+"."+kind+".json") }
	if l.mode == "" {
		l.mode = "delta"
	}
	if l.types == "" {
		l.types = "cds,eds,lds,rds,sds"
	}
	args := []string{"-addr", l.addr, "-n", fmt.Sprint(l.n), "-mode", l.mode, "-types", l.types, "-label", l.name,
		"-server-pid", fmt.Sprint(l.pid), "-rounds", fmt.Sprint(l.rounds), "-warmup", fmt.Sprint(l.warmup),
		"-settle", l.settle.String(), "-pause", l.pause.String(), "-out", file("result"), "-ca", l.ca, "-dump", l.dump}
	if len(l.identities) > 0 {
		if err := writeJSON(file("identities"), l.identities); err != nil {
			return nil, err
		}
		args = append(args, "-identities", file("identities"))
	} else {
		args = append(args, "-node-id", resourceOf(`node-{{printf "%03d" .Mod}}`))
	}
	if len(l.changes) > 0 {
		if err := writeJSON(file("changes"), l.changes); err != nil {
			return nil, err
		}
		args = append(args, "-changes", file("changes"))
	}
	if l.metadata != "" {
		args = append(args, "-node-metadata", l.metadata)
	}
	if l.once {
		args = append(args, "-once")
	}
	if l.reconnect {
		args = append(args, "-reconnect")
	}
	cmd := exec.CommandContext(ctx, w.xdsload, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if l.key.AccessKeyID != "" {
		cmd.Env = append(os.Environ(), "XDSLOAD_CREDENTIALS="+l.key.AccessKeyID+":"+l.key.SecretAccessKey)
	}
	cmd.Stdout, cmd.Stderr = w.progress, w.progress
	fmt.Fprintf(w.progress, "--- %s\n", l.name)
	err := cmd.Run()
	report := &loadrun.Report{}
	b, readErr := os.ReadFile(file("result"))
	if readErr == nil {
		readErr = json.Unmarshal(b, report)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", l.name, err)
	}
	return report, errors.Join(err, readErr)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
