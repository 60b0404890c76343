// Package adswire reads and writes discovery messages as bytes: a gRPC codec
// that does not decode, and the few fields of a response that a client acts on.
// It keeps the share of the clients in a benchmark small. It decides nothing.
package adswire

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// The methods of the aggregated discovery service.
const (
	Service         = "envoy.service.discovery.v3.AggregatedDiscoveryService"
	StateOfTheWorld = "/" + Service + "/StreamAggregatedResources"
	Delta           = "/" + Service + "/DeltaAggregatedResources"
)

// StreamDesc describes either method to a client.
var StreamDesc = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// Frame is a message in its serialised form.
type Frame struct{ Bytes []byte }

// Codec passes Frames through. A received Frame's memory is used again by the
// next receipt into it.
type Codec struct{}

// Name is that of the codec it stands in for.
func (Codec) Name() string { return "proto" }

// Marshal takes a *Frame, whose bytes must not change until they are sent.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*Frame).Bytes)}, nil
}

// Unmarshal fills a *Frame.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	f := v.(*Frame)
	n := data.Len()
	if cap(f.Bytes) < n {
		f.Bytes = make([]byte, n)
	}
	f.Bytes = f.Bytes[:n]
	data.CopyTo(f.Bytes)
	return nil
}

// Response is the part of a DiscoveryResponse or DeltaDiscoveryResponse that a
// client acts on. Its slices point into the bytes it was parsed from.
type Response struct {
	Version string // of all resources; empty in delta
	Nonce   string
	TypeURL string
	Anys    [][]byte // serialised google.protobuf.Any
	Names   []string // of the Anys, one each; empty in state-of-the-world
	Removed []string // delta only
}

// Parse reads a response; it uses r's slices again.
func (r *Response) Parse(b []byte, delta bool) error {
	*r = Response{Anys: r.Anys[:0], Names: r.Names[:0], Removed: r.Removed[:0]}
	return eachField(b, func(number protowire.Number, v []byte) {
		switch {
		case number == 4:
			r.TypeURL = string(v)
		case number == 5:
			r.Nonce = string(v)
		case number == 1 && !delta:
			r.Version = string(v)
		case number == 2 && !delta:
			r.Anys = append(r.Anys, v)
		case number == 2 && delta:
			name, body := resource(v)
			r.Names, r.Anys = append(r.Names, name), append(r.Anys, body)
		case number == 6 && delta:
			r.Removed = append(r.Removed, string(v))
		}
	})
}

// resource reads the envelope that delta puts around an Any. One that does not
// parse is empty, which no client can use.
func resource(b []byte) (name string, body []byte) {
	if err := eachField(b, func(number protowire.Number, v []byte) {
		switch number {
		case 2:
			body = v
		case 3:
			name = string(v)
		}
	}); err != nil {
		return "", nil
	}
	return name, body
}

// Request is the part of a DeltaDiscoveryRequest that tells what it answers.
type Request struct {
	TypeURL string
	Nonce   string // empty: it acknowledges nothing
	Nack    bool
}

// ParseDeltaRequest reads a request.
func ParseDeltaRequest(b []byte) (r Request, err error) {
	err = eachField(b, func(number protowire.Number, v []byte) {
		switch number {
		case 2:
			r.TypeURL = string(v)
		case 6:
			r.Nonce = string(v)
		case 7:
			r.Nack = true
		}
	})
	return r, err
}

// eachField calls f for every length-delimited field of a message.
func eachField(b []byte, f func(number protowire.Number, v []byte)) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			f(number, v)
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}
