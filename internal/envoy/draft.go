package envoy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// draft collects what the building of one unit brings along.
type draft struct {
	refs     []Ref
	problems []mesh.Problem
	err      error // the first one
}

// content is a message and parts of it that are serialised already: protobuf
// messages merge when they are written one behind the other.
type content struct {
	proto.Message
	parts []byte
}

func (d *draft) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// ref notes that the unit names a resource, and returns the name.
func (d *draft) ref(t Type, name string) string {
	d.refs = append(d.refs, Ref{t, name})
	return name
}

func (d *draft) references() []Ref {
	slices.SortFunc(d.refs, func(a, b Ref) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(d.refs)
}

func (d *draft) problem(id mesh.ID, field, format string, args ...any) {
	d.problems = append(d.problems, mesh.Problem{ID: id, Field: field, Message: fmt.Sprintf(format, args...)})
}

var deterministic = proto.MarshalOptions{Deterministic: true}

// pack puts a message into a typed_config.
func (d *draft) pack(m proto.Message) *anypb.Any {
	packed := &anypb.Any{}
	if err := anypb.MarshalFrom(packed, m, deterministic); err != nil {
		d.fail(fmt.Errorf("serialise %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return packed
}

// validated is what the generated messages know about their own bounds: it
// finds here what an Envoy would reject.
type validated interface{ Validate() error }

// check looks at a message's bounds.
func (d *draft) check(m proto.Message) {
	if v, ok := m.(validated); ok && d.err == nil {
		if err := v.Validate(); err != nil {
			d.fail(fmt.Errorf("check %s: %w", m.ProtoReflect().Descriptor().Name(), err))
		}
	}
}

// serialise writes a message as a serialised google.protobuf.Any.
func (d *draft) serialise(c content) []byte {
	if c.Message == nil || d.err != nil {
		return nil
	}
	if c.parts == nil {
		d.check(c.Message)
	}
	value, err := deterministic.Marshal(c.Message)
	if err != nil {
		d.fail(fmt.Errorf("serialise %s: %w", c.ProtoReflect().Descriptor().FullName(), err))
		return nil
	}
	url := "type.googleapis.com/" + string(c.ProtoReflect().Descriptor().FullName())
	out := make([]byte, 0, len(url)+len(value)+len(c.parts)+2*binary.MaxVarintLen64)
	out = protowire.AppendTag(out, 1, protowire.BytesType) // Any.type_url
	out = protowire.AppendString(out, url)
	out = protowire.AppendTag(out, 2, protowire.BytesType) // Any.value
	out = protowire.AppendVarint(out, uint64(len(value)+len(c.parts)))
	out = append(out, value...)
	return append(out, c.parts...)
}

// version names a content and whom to blame for it.
func version(encoded []byte, origin mesh.ID) string {
	var k key
	k.id(origin)
	h := sha256.New()
	h.Write(k.bytes)
	h.Write(encoded)
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// key is the fingerprint of a unit's inputs, spelled out: equal only if all
// inputs are.
type key struct{ bytes []byte }

// start begins a key of another kind of unit in the same memory.
func (k *key) start(kind string) *key {
	k.bytes = k.bytes[:0]
	return k.str(kind)
}

func (k *key) str(s string) *key {
	k.bytes = binary.AppendUvarint(k.bytes, uint64(len(s)))
	k.bytes = append(k.bytes, s...)
	return k
}

func (k *key) strs(list []string) *key {
	k.int(int64(len(list)))
	for _, s := range list {
		k.str(s)
	}
	return k
}

func (k *key) int(i int64) *key {
	k.bytes = binary.AppendVarint(k.bytes, i)
	return k
}

func (k *key) bool(b bool) *key {
	if b {
		return k.int(1)
	}
	return k.int(0)
}

// serials adds units that were built before.
func (k *key) serials(units []*unit) *key {
	k.int(int64(len(units)))
	for _, u := range units {
		k.int(int64(u.serial))
	}
	return k
}

func (k *key) id(id mesh.ID) *key { return k.str(string(id.Kind)).str(id.Parent).str(id.Name) }

// record adds a stored record: its revision stands for its content.
func record[S any](k *key, r *mesh.Record[S]) *key {
	if r == nil {
		return k.str("")
	}
	return k.id(r.ID).int(r.Revision)
}

// endpoint adds the record of a node or gateway.
func (k *key) endpoint(e *mesh.Endpoint) *key {
	if e.Node != nil {
		return record(k, e.Node)
	}
	return record(k, e.Gateway)
}

func (k *key) certificate(c *tlspolicy.Certificate) *key {
	if c == nil {
		return k.str("")
	}
	return k.str("certificate").str(string(c.Source)).str(c.ARN).str(c.Chain).str(c.Key).str(c.Secret)
}

func (k *key) trust(t *tlspolicy.Trust) *key {
	if t == nil {
		return k.str("")
	}
	return k.str("trust").str(string(t.Source)).strs(t.ARNs).str(t.Chain).str(t.Secret)
}

// decision adds what a cluster is built from; the reason does not matter.
func (k *key) decision(d *tlspolicy.Decision) *key {
	k.str(string(d.Transport)).str(string(d.Validation)).trust(d.Trust).certificate(d.IssuerOf)
	return k.strs(d.SANs).certificate(d.Certificate).str(d.SNI)
}
