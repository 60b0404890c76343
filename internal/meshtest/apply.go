package meshtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"sigs.k8s.io/yaml"
)

// Answer is what a raw request got.
type Answer struct {
	Status int
	Code   string // x-amzn-ErrorType
	Header http.Header
	Body   string
}

// Send signs a request with the root key and sends it as it is: for what SDKs
// would not send. The path is escaped already.
func (s *Server) Send(t testing.TB, method, path, body string) Answer {
	t.Helper()
	r, err := http.NewRequest(method, s.API+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	s.Sign(t, r, body, "appmesh")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{response.StatusCode, response.Header.Get("X-Amzn-Errortype"), response.Header, string(content)}
}

// Sign signs a request for a service with the root key.
func (s *Server) Sign(t testing.TB, r *http.Request, body, service string) {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), s.rootKey(t), r, hex.EncodeToString(sum[:]), service, Region, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// RootKey is the key that may do everything but open streams.
func (s *Server) RootKey(t testing.TB) Key {
	t.Helper()
	key := s.rootKey(t)
	return Key{ID: key.AccessKeyID, Secret: key.SecretAccessKey}
}

func (s *Server) rootKey(t testing.TB) aws.Credentials {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(Region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatalf("load the root key: %v", err)
	}
	key, err := cfg.Credentials.Retrieve(context.Background())
	if err != nil {
		t.Fatalf("load the root key: %v", err)
	}
	return key
}

// Apply makes resources, or updates those that are there, in the order of a
// list of YAML documents between lines of ---:
//
//	{mesh: m, spec: {}}
//	---
//	virtualNode: a
//	spec: {…}
//	---
//	{route: x, virtualRouter: r, spec: {…}, tags: {k: v}}
//
// They go into the mesh of the last document with "mesh". spec: null deletes.
// Tags count only when a resource is made.
func (s *Server) Apply(t testing.TB, documents string) {
	t.Helper()
	mesh := ""
	for _, text := range strings.Split(documents, "\n---\n") {
		var d document
		if err := yaml.UnmarshalStrict([]byte(text), &d); err != nil {
			t.Fatalf("read document: %v\n%s", err, text)
		}
		if d.Mesh != "" {
			mesh = d.Mesh
		}
		if err := s.apply(t, mesh, &d); err != nil {
			t.Fatal(err)
		}
	}
}

// document is one resource of Apply.
type document struct {
	Mesh           string            `json:"mesh"`
	VirtualNode    string            `json:"virtualNode"`
	VirtualService string            `json:"virtualService"`
	VirtualRouter  string            `json:"virtualRouter"`
	VirtualGateway string            `json:"virtualGateway"`
	Route          string            `json:"route"`
	GatewayRoute   string            `json:"gatewayRoute"`
	Spec           json.RawMessage   `json:"spec"`
	Tags           map[string]string `json:"tags"`
}

// place is the collection that a document's resource is in, the member of its
// name, and its name.
func (d *document) place(mesh string) (collection, member, name string) {
	base := "/v20190125/meshes/" + url.PathEscape(mesh) + "/"
	switch {
	case d.Route != "":
		return base + "virtualRouter/" + url.PathEscape(d.VirtualRouter) + "/routes", "routeName", d.Route
	case d.GatewayRoute != "":
		return base + "virtualGateway/" + url.PathEscape(d.VirtualGateway) + "/gatewayRoutes", "gatewayRouteName", d.GatewayRoute
	case d.VirtualNode != "":
		return base + "virtualNodes", "virtualNodeName", d.VirtualNode
	case d.VirtualService != "":
		return base + "virtualServices", "virtualServiceName", d.VirtualService
	case d.VirtualRouter != "":
		return base + "virtualRouters", "virtualRouterName", d.VirtualRouter
	case d.VirtualGateway != "":
		return base + "virtualGateways", "virtualGatewayName", d.VirtualGateway
	}
	return "/v20190125/meshes", "meshName", d.Mesh
}

func (s *Server) apply(t testing.TB, mesh string, d *document) error {
	t.Helper()
	collection, member, name := d.place(mesh)
	item := collection + "/" + url.PathEscape(name)
	if bytes.Equal(d.Spec, []byte("null")) {
		if a := s.Send(t, http.MethodDelete, item, ""); a.Status != http.StatusOK {
			return fmt.Errorf("delete %s: %d %s", item, a.Status, a.Body)
		}
		return nil
	}
	request := map[string]any{member: name, "spec": d.Spec}
	if len(d.Tags) > 0 {
		var tags []map[string]string
		for key, value := range d.Tags {
			tags = append(tags, map[string]string{"key": key, "value": value})
		}
		request["tags"] = tags
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	a := s.Send(t, http.MethodPut, collection, string(body))
	if a.Code == "ConflictException" {
		if body, err = json.Marshal(map[string]any{"spec": d.Spec}); err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		a = s.Send(t, http.MethodPut, item, string(body))
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("apply %s: %d %s", item, a.Status, a.Body)
	}
	return nil
}
