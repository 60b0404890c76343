package agent

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

const (
	adminTimeout = 5 * time.Second
	maxAdminBody = 64 << 20
)

// envoyAdmin speaks to Envoy's real admin.
type envoyAdmin struct {
	transport *http.Transport
	client    *http.Client
}

func newEnvoyAdmin(at Address) *envoyAdmin {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, at.Network, at.Address)
		},
		MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	return &envoyAdmin{transport, &http.Client{Transport: transport, Timeout: adminTimeout}}
}

// call returns the body of a page; any status but 200 is an error that has it.
func (a *envoyAdmin) call(ctx context.Context, method, page string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://envoy"+page, nil)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy: %w", err)
	}
	request.Header.Set("User-Agent", "fairlead-agent")
	response, err := a.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBody))
	if err != nil {
		return nil, fmt.Errorf("ask Envoy for %s: %w", page, err)
	}
	if response.StatusCode != http.StatusOK {
		return body, fmt.Errorf("Envoy's %s: %s: %s", page, response.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

func (a *envoyAdmin) get(ctx context.Context, page string) ([]byte, error) {
	return a.call(ctx, http.MethodGet, page)
}

// message reads a page in the JSON form of one of Envoy's messages.
func (a *envoyAdmin) message(ctx context.Context, page string, into proto.Message) error {
	body, err := a.get(ctx, page)
	if err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, into); err != nil {
		return fmt.Errorf("read Envoy's %s: %w", page, err)
	}
	return nil
}

// listeners are the names of the listeners that take connections: one that
// waits for a secret or has no socket is not among them.
func (a *envoyAdmin) listeners(ctx context.Context) (map[string]bool, error) {
	var listeners adminv3.Listeners
	if err := a.message(ctx, "/listeners?format=json", &listeners); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, l := range listeners.ListenerStatuses {
		names[l.Name] = true
	}
	return names, nil
}

// counters reads the statistics whose names match an expression and that want
// is true of.
func (a *envoyAdmin) counters(ctx context.Context, expression string, want func(name string) bool) (map[string]uint64, error) {
	body, err := a.get(ctx, "/stats?filter="+url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	counters := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		// A name may hold a colon, a value does not.
		line := lines.Text()
		i := strings.LastIndex(line, ": ")
		if i < 0 || !want(line[:i]) {
			continue
		}
		if value, err := strconv.ParseUint(line[i+2:], 10, 64); err == nil {
			counters[line[:i]] = value
		}
	}
	return counters, nil
}

// connections is how many connections Envoy's listeners hold now.
func (a *envoyAdmin) connections(ctx context.Context) (uint64, error) {
	const suffix = ".downstream_cx_active"
	gauges, err := a.counters(ctx, `^listener\..*\`+suffix+`$`, func(name string) bool {
		// Each worker counts again, and the admin is a listener of its own.
		return strings.HasSuffix(name, suffix) && !strings.Contains(name, ".worker_") && !strings.HasPrefix(name, "listener.admin.")
	})
	var sum uint64
	for _, n := range gauges {
		sum += n
	}
	return sum, err
}

// adminOfFile finds Envoy's admin in a configuration that the user wrote.
func adminOfFile(path string) (Address, error) {
	text, err := readFile(path, maxSecretFile)
	if err != nil {
		return Address{}, fmt.Errorf("read Envoy's configuration: %w", err)
	}
	encoded, err := yaml.YAMLToJSON(text)
	if err != nil {
		return Address{}, fmt.Errorf("read Envoy's configuration %s: %w", path, err)
	}
	var top struct {
		Admin struct {
			Address yamlMessage `json:"address"`
		} `json:"admin"`
	}
	if err := yaml.Unmarshal(encoded, &top); err != nil {
		return Address{}, fmt.Errorf("read Envoy's configuration %s: %w", path, err)
	}
	var address corev3.Address
	if len(top.Admin.Address) > 0 {
		if err := protojson.Unmarshal(top.Admin.Address, &address); err != nil {
			return Address{}, fmt.Errorf("read Envoy's configuration %s: admin.address: %w", path, err)
		}
	}
	if pipe := address.GetPipe().GetPath(); pipe != "" {
		return Address{"unix", pipe}, nil
	}
	if socket := address.GetSocketAddress(); socket.GetPortValue() != 0 {
		return Address{"tcp", net.JoinHostPort(socket.Address, strconv.Itoa(int(socket.GetPortValue())))}, nil
	}
	return Address{}, fmt.Errorf("read Envoy's configuration %s: it has no admin address, by which the agent watches Envoy", path)
}

// yamlMessage keeps a part of a document as JSON.
type yamlMessage []byte

// UnmarshalJSON keeps the text.
func (m *yamlMessage) UnmarshalJSON(text []byte) error {
	*m = bytes.Clone(text)
	return nil
}
