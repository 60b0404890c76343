package xds

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	// The codec that everything but our own messages goes to.
	_ "google.golang.org/grpc/encoding/proto"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Bounds of what one request may say. A request is at most maxRequest bytes
// (ServerOptions); these bound what is kept of it.
const (
	maxRequest = 4 << 20
	maxNames   = 20_000
	maxName    = 2 << 10
	maxMessage = 4 << 10 // of Envoy's words in a NACK
)

// kind is a resource type as a stream knows it: envoy.Type, and those that only
// agents speak.
type kind uint8

const (
	kindManifest kind = envoy.NumTypes + iota
	kindReport
	kindUnknown
)

func kindOf(url []byte) kind {
	if t, ok := envoy.TypeOf(string(url)); ok {
		return kind(t)
	}
	switch string(url) {
	case ManifestURL:
		return kindManifest
	case ReportURL:
		return kindReport
	}
	return kindUnknown
}

func (k kind) url() string {
	if k < envoy.NumTypes {
		return envoy.Type(k).URL()
	}
	return ManifestURL
}

// request is what a stream acts on in a request of either protocol. Strings are
// copies; node is, too.
type request struct {
	delta bool // how to read it; set before decoding

	kind        kind
	node        []byte
	version     string // SotW
	nonce       string
	names       []string // SotW: all; delta: to subscribe
	unsubscribe []string
	initial     []heldVersion // delta: what the proxy holds from an earlier stream
	nacked      bool
	message     string
}

// heldVersion is an entry of initial_resource_versions.
type heldVersion struct{ name, version string }

var errTooMany = errors.New("request names too many resources")

// Field numbers of DiscoveryRequest and DeltaDiscoveryRequest.
const (
	sotwVersion, sotwNode, sotwNames, sotwURL, sotwNonce, sotwError                               = 1, 2, 3, 4, 5, 6
	deltaNode, deltaURL, deltaSubscribe, deltaUnsubscribe, deltaInitial, deltaNonce, deltaErrorNo = 1, 2, 3, 4, 5, 6, 7
)

func (r *request) decode(b []byte) error {
	*r = request{delta: r.delta, kind: kindUnknown}
	return eachBytes(b, func(num protowire.Number, v []byte) error {
		if r.delta {
			return r.deltaField(num, v)
		}
		return r.sotwField(num, v)
	})
}

func (r *request) sotwField(num protowire.Number, v []byte) (err error) {
	switch num {
	case sotwVersion:
		r.version, err = name(v)
	case sotwNode:
		r.node = append([]byte(nil), v...)
	case sotwNames:
		r.names, err = appendName(r.names, v)
	case sotwURL:
		r.kind = kindOf(v)
	case sotwNonce:
		r.nonce, err = name(v)
	case sotwError:
		err = r.errorDetail(v)
	}
	return err
}

func (r *request) deltaField(num protowire.Number, v []byte) (err error) {
	switch num {
	case deltaNode:
		r.node = append([]byte(nil), v...)
	case deltaURL:
		r.kind = kindOf(v)
	case deltaSubscribe:
		r.names, err = appendName(r.names, v)
	case deltaUnsubscribe:
		r.unsubscribe, err = appendName(r.unsubscribe, v)
	case deltaInitial:
		err = r.initialVersion(v)
	case deltaNonce:
		r.nonce, err = name(v)
	case deltaErrorNo:
		err = r.errorDetail(v)
	}
	return err
}

func (r *request) initialVersion(entry []byte) error {
	if len(r.initial) == maxNames {
		return errTooMany
	}
	var h heldVersion
	err := eachBytes(entry, func(num protowire.Number, v []byte) (err error) {
		switch num {
		case 1:
			h.name, err = name(v)
		case 2:
			h.version, err = name(v)
		}
		return err
	})
	r.initial = append(r.initial, h)
	return err
}

// errorDetail reads a google.rpc.Status. An empty one is a NACK as well.
func (r *request) errorDetail(b []byte) error {
	r.nacked = true
	return eachBytes(b, func(num protowire.Number, v []byte) error {
		if num == 2 {
			r.message = words(string(v))
		}
		return nil
	})
}

// words is what a NACK says, bounded. Envoy puts the text of the whole resource
// before the reason when a field's constraint fails. That text is left out: it
// is long, and of a secret it would be the key.
func words(message string) string {
	if head, dump, ok := strings.Cut(message, "goo.gle/debug"); ok {
		message = head
		if i := strings.LastIndex(dump, "\n: "); i >= 0 {
			message += dump[i+len("\n: "):]
		}
	}
	if len(message) > maxMessage {
		message = message[:maxMessage/2] + " … " + message[len(message)-maxMessage/2:]
	}
	return strings.ToValidUTF8(strings.TrimSpace(message), "?")
}

func name(v []byte) (string, error) {
	if len(v) > maxName {
		return "", fmt.Errorf("a name in a request is %d bytes long, at most %d are allowed", len(v), maxName)
	}
	return string(v), nil
}

func appendName(names []string, v []byte) ([]string, error) {
	if len(names) == maxNames {
		return names, errTooMany
	}
	n, err := name(v)
	return append(names, n), err
}

// eachBytes calls f for every length-delimited field of a message.
func eachBytes(b []byte, f func(num protowire.Number, v []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			n = protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func decodeNode(b []byte) (*corev3.Node, error) {
	var n corev3.Node
	if err := proto.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("read node: %w", err)
	}
	return &n, nil
}

// response is a message on its way out. Its large parts, the resources, are the
// bytes that all streams share; only names, versions, lengths and the nonce are
// written per message, into one buffer.
type response struct {
	delta     bool
	kind      kind
	version   string
	prefix    string // of each resource's version
	nonce     string
	resources []*envoy.Resource
	removed   []string // delta only
}

// Field numbers of DiscoveryResponse and DeltaDiscoveryResponse.
const (
	respVersion, respResource, respURL, respNonce, respRemoved = 1, 2, 4, 5, 6
	// of Resource
	resVersion, resAny, resName = 1, 2, 3
)

// buffers is the message as a list of slices: one for the head, then for each
// resource its frame and its shared content.
func (r *response) buffers() mem.BufferSlice {
	size := len(r.version) + len(r.kind.url()) + len(r.nonce) + 24
	for _, name := range r.removed {
		size += len(name) + 6
	}
	for _, res := range r.resources {
		size += 6
		if r.delta {
			size += len(res.Name) + len(r.prefix) + len(res.Version) + 20
		}
	}
	b := make([]byte, 0, size)
	b = appendField(b, respVersion, r.version)
	for _, name := range r.removed {
		b = appendField(b, respRemoved, name)
	}
	b = appendField(b, respURL, r.kind.url())
	b = appendField(b, respNonce, r.nonce)
	out := make(mem.BufferSlice, 0, 2*len(r.resources)+1)
	start := 0
	for _, res := range r.resources {
		if r.delta {
			b = appendDeltaFrame(b, res, r.prefix)
		} else {
			b = protowire.AppendTag(b, respResource, protowire.BytesType)
			b = protowire.AppendVarint(b, uint64(len(res.Any)))
		}
		out = append(out, mem.SliceBuffer(b[start:len(b):len(b)]), mem.SliceBuffer(res.Any))
		start = len(b)
	}
	if start < len(b) {
		out = append(out, mem.SliceBuffer(b[start:]))
	}
	return out
}

func appendField(b []byte, num protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// appendDeltaFrame writes a Resource field up to the content of its Any.
func appendDeltaFrame(b []byte, res *envoy.Resource, prefix string) []byte {
	versionLen := len(prefix) + len(res.Version)
	inner := fieldSize(len(res.Name)) + fieldSize(versionLen) + fieldSize(len(res.Any))
	b = protowire.AppendTag(b, respResource, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = appendField(b, resName, res.Name)
	b = protowire.AppendTag(b, resVersion, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(versionLen))
	b = append(append(b, prefix...), res.Version...)
	b = protowire.AppendTag(b, resAny, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(len(res.Any)))
}

// fieldSize is the size of a length-delimited field with a one-byte tag.
func fieldSize(n int) int { return 1 + protowire.SizeVarint(uint64(n)) + n }

// codec reads requests and writes responses without the protobuf runtime.
// Anything else goes the ordinary way, so that other services can share the
// gRPC server.
type codec struct{ fallback encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Name is the content-subtype that proxies use.
func (codec) Name() string { return "proto" }

// Marshal is called by gRPC.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*response); ok {
		return r.buffers(), nil
	}
	return c.fallback.Marshal(v)
}

// Unmarshal is called by gRPC, which owns data.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		return c.fallback.Unmarshal(data, v)
	}
	if len(data) == 1 {
		return r.decode(data[0].ReadOnlyData())
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return r.decode(buf.ReadOnlyData())
}

// sortedNames sorts and removes repetitions, in place.
func sortedNames(names []string) []string {
	sort.Strings(names)
	out := names[:0]
	for i, n := range names {
		if i == 0 || n != names[i-1] {
			out = append(out, n)
		}
	}
	return out
}
