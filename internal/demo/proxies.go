package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// proxy is an endpoint's agent with its Envoy.
type proxy struct {
	endpoint
	process *process
}

// readyWithin bounds the wait for an Envoy to be configured.
const readyWithin = 60 * time.Second

func (d *Demo) startProxies(ctx context.Context) error {
	for _, e := range append([]endpoint{gateway}, nodes...) {
		if err := d.startProxy(ctx, e); err != nil {
			return err
		}
	}
	for _, p := range d.proxies {
		if err := eventually(ctx, readyWithin, p.process, func(ctx context.Context) error {
			_, err := d.admin(ctx, p.host, "/ready")
			return err
		}); err != nil {
			return fmt.Errorf("wait for the proxy of %s: %w", p.name, err)
		}
		d.say("   %-8s ready on %s", p.name, d.network.ip(p.host))
	}
	return nil
}

// startProxy makes the proxy's own credential and starts its agent with it.
func (d *Demo) startProxy(ctx context.Context, e endpoint) error {
	answer, err := d.operate(ctx, "proxy", "credentials", "create", e.resource(), "-o", "json")
	if err != nil {
		return err
	}
	var credential struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
	}
	if err := json.Unmarshal(answer, &credential); err != nil || credential.AccessKeyID == "" {
		return fmt.Errorf("read the credential of %s: unexpected answer", e.name)
	}
	cmd := exec.Command(d.Fairlead, "agent")
	cmd.Env = append(withoutAWS(os.Environ()),
		"APPMESH_RESOURCE_ARN="+e.resource(),
		"APPMESH_XDS_ENDPOINT="+d.server.xds,
		"FAIRLEAD_CA_FILE="+d.server.ca,
		"AWS_REGION="+region,
		"AWS_ACCESS_KEY_ID="+credential.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY="+credential.SecretAccessKey,
		"FAIRLEAD_BIND_ADDRESS="+d.network.ip(e.host),
		"FAIRLEAD_DNS_RESOLVER="+d.dns.Address(),
		"FAIRLEAD_STATE_DIR="+filepath.Join(d.dir, "state", e.name),
		"ENVOY_BIN="+d.Envoy,
		"ENVOY_CONCURRENCY=1",
		"LISTENER_DRAIN_WAIT_TIME_S=5")
	if e.kind == "virtualNode" {
		port, err := application(ctx, e.name)
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf("FAIRLEAD_APP_PORTS=%d=%d", listenerPort, port))
	}
	process, err := d.processes.start("agent-"+e.name, cmd, nil)
	if err != nil {
		return err
	}
	d.proxies = append(d.proxies, &proxy{endpoint: e, process: process})
	return nil
}

// admin reads a page that the agent serves of its Envoy.
func (d *Demo) admin(ctx context.Context, host byte, path string) (string, error) {
	return get(ctx, "http://"+d.network.at(host, adminPort)+path)
}

// get returns the body; any status but 200 is an error.
func get(ctx context.Context, url string) (string, error) {
	status, body, err := fetch(ctx, url)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: %d %s", url, status, body)
	}
	return body, err
}

func fetch(ctx context.Context, url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return 0, "", fmt.Errorf("read %s: %w", url, err)
	}
	return response.StatusCode, strings.TrimSpace(string(content)), nil
}
