package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
)

const region = "us-east-1"

// server is the running control plane, as its ready line names it.
type server struct {
	process         *process
	api, xds, ops   string // api and ops are URLs, xds is host:port
	ca, credentials string // files
	appmesh         *appmesh.Client
}

func (d *Demo) startServer(ctx context.Context) error {
	var err error
	if d.network, err = freeNetwork(); err != nil {
		return err
	}
	dataDir := filepath.Join(d.dir, "data")
	cmd := exec.Command(d.Fairlead, "server", "--data-dir", dataDir,
		"--api-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0")
	ready := make(chan string, 1)
	started, err := d.processes.start("server", cmd, func(line string) {
		if strings.HasPrefix(line, "ready ") {
			ready <- line
		}
	})
	if err != nil {
		return err
	}
	d.server = server{process: started, ca: filepath.Join(dataDir, "server-ca.pem"), credentials: filepath.Join(dataDir, "credentials")}
	select {
	case line := <-ready:
		if err := d.server.parseReady(line); err != nil {
			return err
		}
	case <-started.exited:
		return errors.New("the server ended")
	case <-time.After(30 * time.Second):
		return errors.New("the server was not ready within 30 seconds")
	case <-ctx.Done():
		return ctx.Err()
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{d.server.credentials}), config.WithSharedConfigProfile("default"))
	if err != nil {
		return fmt.Errorf("load the root key: %w", err)
	}
	d.server.appmesh = appmesh.NewFromConfig(cfg, func(o *appmesh.Options) { o.BaseEndpoint = aws.String(d.server.api) })
	d.say("   API %s   xDS %s (TLS)   root key in %s", d.server.api, d.server.xds, d.server.credentials)
	return nil
}

// parseReady reads "ready api=… xds=… ops=…".
func (s *server) parseReady(line string) error {
	for _, word := range strings.Fields(line)[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "api":
			s.api = asURL(value)
		case "xds":
			s.xds = value
		case "ops":
			s.ops = asURL(value)
		}
	}
	if s.api == "" || s.xds == "" {
		return fmt.Errorf("the server's ready line names no addresses: %q", line)
	}
	return nil
}

func asURL(address string) string {
	if strings.Contains(address, "://") {
		return address
	}
	return "http://" + address
}

// operate runs an operator command of the fairlead binary, as a user would.
func (d *Demo) operate(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.Fairlead, args...)
	cmd.Env = append(withoutAWS(os.Environ()), "AWS_ENDPOINT_URL="+d.server.api, "AWS_REGION="+region,
		"AWS_SHARED_CREDENTIALS_FILE="+d.server.credentials)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// withoutAWS drops what the user's own AWS set-up would change in the demo.
func withoutAWS(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "AWS_") && !strings.HasPrefix(variable, "APPMESH_") && !strings.HasPrefix(variable, "FAIRLEAD_") {
			kept = append(kept, variable)
		}
	}
	return kept
}
