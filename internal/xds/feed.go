package xds

import (
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Target is what the streams of a Feed are to hold. The resources of its
// Config are sorted by name, and every Ref is inside (see Check).
type Target struct {
	Config *envoy.Config
	// Manifest goes ahead of each push to the streams that subscribe to it.
	Manifest Manifest
}

// publication is a Target as streams share it.
type publication struct {
	Target

	once     sync.Once
	resource *envoy.Resource
}

// manifestResource is the manifest as a resource, encoded once for all streams.
func (t *publication) manifestResource() *envoy.Resource {
	t.once.Do(func() {
		b, err := t.Manifest.encode()
		if err != nil {
			// A lineage or name that is not UTF-8, which the API refuses.
			panic(fmt.Sprintf("encode manifest: %v", err))
		}
		t.resource = &envoy.Resource{Ref: envoy.Ref{Name: "manifest"}, Version: strconv.FormatInt(t.Manifest.Revision, 10), Any: b}
	})
	return t.resource
}

// Manifest says what a push was made from. Agents keep it beside the
// configuration and check removals against it.
type Manifest struct {
	Lineage  string
	Revision int64
	Origins  []string // of each record its mesh.ID, @ and its revision
	// AcceptShrink is set while an operator has released a held removal.
	AcceptShrink bool
}

// Feed holds the newest Target of a group of proxies with the same
// configuration and wakes their streams when it changes. The zero value is
// ready; a stream attached to it gets nothing before the first Publish.
type Feed struct {
	mu      sync.Mutex
	target  *publication
	streams map[*Stream]struct{}
}

// Publish makes t what the streams are to hold. The newest wins: a stream that
// is busy goes on to t without passing through what it has not begun. With the
// same Config as before nothing is sent, and only new pushes carry the new
// Manifest, unless AcceptShrink has been set.
func (f *Feed) Publish(t Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.target
	f.target = &publication{Target: t}
	wake := old == nil || old.Config != t.Config || t.Manifest.AcceptShrink && !old.Manifest.AcceptShrink
	if !wake {
		return
	}
	for s := range f.streams {
		s.retarget(f.target)
	}
}

// Target is the newest Target; its Config is nil before the first Publish.
func (f *Feed) Target() Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.target == nil {
		return Target{}
	}
	return f.target.Target
}

// Streams is the number of streams attached.
func (f *Feed) Streams() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.streams)
}

func (f *Feed) add(s *Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams == nil {
		f.streams = map[*Stream]struct{}{}
	}
	f.streams[s] = struct{}{}
	if f.target != nil {
		s.retarget(f.target)
	}
}

func (f *Feed) remove(s *Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, s)
}

// Struct is the manifest as it travels.
func (m Manifest) Struct() *structpb.Struct {
	origins := make([]*structpb.Value, len(m.Origins))
	for i, o := range m.Origins {
		origins[i] = structpb.NewStringValue(o)
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"lineage":       structpb.NewStringValue(m.Lineage),
		"revision":      structpb.NewNumberValue(float64(m.Revision)),
		"origins":       structpb.NewListValue(&structpb.ListValue{Values: origins}),
		"accept_shrink": structpb.NewBoolValue(m.AcceptShrink),
	}}
}

// ReadManifest is the inverse of Struct. It also reads what an agent says in
// its node metadata (fairlead.held), which has the same fields.
func ReadManifest(s *structpb.Struct) Manifest {
	m := Manifest{
		Lineage:      s.GetFields()["lineage"].GetStringValue(),
		Revision:     int64(s.GetFields()["revision"].GetNumberValue()),
		AcceptShrink: s.GetFields()["accept_shrink"].GetBoolValue(),
	}
	for _, v := range s.GetFields()["origins"].GetListValue().GetValues() {
		m.Origins = append(m.Origins, v.GetStringValue())
	}
	return m
}

// ParseManifest reads the serialised Any of the resource that ManifestURL
// delivers.
func ParseManifest(b []byte) (Manifest, error) {
	var a anypb.Any
	if err := proto.Unmarshal(b, &a); err != nil {
		return Manifest{}, err
	}
	var s structpb.Struct
	if err := a.UnmarshalTo(&s); err != nil {
		return Manifest{}, err
	}
	return ReadManifest(&s), nil
}

func (m Manifest) encode() ([]byte, error) {
	a, err := anypb.New(m.Struct())
	if err != nil {
		return nil, err
	}
	return proto.Marshal(a)
}
