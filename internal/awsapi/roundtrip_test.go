package awsapi

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
)

// everyType lists the inputs and outputs of all operations.
func everyType() map[string]reflect.Type {
	types := map[string]reflect.Type{}
	signatures(types, "appmesh.", reflect.TypeFor[appmesh.Service]())
	signatures(types, "acm.", reflect.TypeFor[acm.Service]())
	signatures(types, "acmpca.", reflect.TypeFor[acmpca.Service]())
	return types
}

func signatures(types map[string]reflect.Type, prefix string, service reflect.Type) {
	for i := range service.NumMethod() {
		m := service.Method(i)
		for j := range m.Type.NumIn() {
			if t := m.Type.In(j); t.Kind() == reflect.Pointer {
				types[prefix+t.Elem().Name()] = t.Elem()
			}
		}
		for j := range m.Type.NumOut() {
			if t := m.Type.Out(j); t.Kind() == reflect.Pointer {
				types[prefix+t.Elem().Name()] = t.Elem()
			}
		}
	}
}

// TestProtocolsAgree: any input is the same typed input in JSON and in CBOR,
// however it is written, and any output the same to readers of both. The
// encoders and decoders of the other side are not ours.
func TestProtocolsAgree(t *testing.T) {
	types := everyType()
	if len(types) < 2*38+40+23 {
		t.Fatalf("%d types", len(types))
	}
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				r := rand.New(rand.NewPCG(seed, 5))
				want := reflect.New(typ)
				fill(r, want.Elem(), 0)
				tree, item := written(r, want.Elem())
				text, err := json.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				readSame(t, "JSON of encoding/json", decode, text, want)
				readSame(t, "CBOR of smithy", decodeCBOR, cbor.Encode(item), want)
				readSame(t, "CBOR of odd forms", decodeCBOR, oddly(r, nil, item), want)
				ours, err := encode(want.Interface())
				if err != nil {
					t.Fatal(err)
				}
				readSame(t, "our JSON", decode, ours, want)
				binary := mustCBOR(t, want.Interface())
				readSame(t, "our CBOR", decodeCBOR, binary, want)
				if theirs, err := cbor.Decode(binary); err != nil || !cmp.Equal(withoutNil(theirs), withoutNil(item)) {
					t.Fatalf("smithy reads our CBOR otherwise: %v\n%s", err, cmp.Diff(withoutNil(item), withoutNil(theirs)))
				}
				if t.Failed() {
					t.Fatalf("seed %d: %s", seed, text)
				}
			}
		})
	}
}

func readSame(t *testing.T, how string, read func([]byte, any) (Faults, bool), data []byte, want reflect.Value) {
	t.Helper()
	got := reflect.New(want.Type().Elem())
	if faults, _ := read(data, got.Interface()); len(faults) > 0 {
		t.Errorf("%s: %v\n%x", how, faults, data)
	} else if diff := cmp.Diff(want.Interface(), got.Interface()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", how, diff)
	}
}

// fill makes a random value; members of the path and the query stay as they are.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case api.Timestamp:
		v.Set(reflect.ValueOf(api.Timestamp{Time: time.UnixMilli(r.Int64N(4e12) - 1e12).UTC()}))
		return
	case api.Secret:
		v.Set(reflect.ValueOf(api.NewSecret(randomText(r))))
		return
	case api.SecretBlob:
		v.Set(reflect.ValueOf(api.NewSecretBlob([]byte(randomText(r)))))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if name != "-" && (options == "" || depth < 8 && r.IntN(2) == 0) {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(randomText(r)))
			return
		}
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.String:
		v.SetString(randomText(r))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64) * (1 - 2*r.Int64N(2)))
	default:
		panic("no random " + v.Type().String())
	}
}

func randomText(r *rand.Rand) string {
	pieces := []string{"a", "Z", "é", "€", "\U0001F512", `"`, `\`, "\n", "\x01", "<", "=", "0", " ", "\u2028"}
	var b strings.Builder
	for range r.IntN(6) * r.IntN(12) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// written is a value as encoding/json and as smithy's encoder take it. Absent
// members are null now and then, or never if there is no r, and then required
// ones may be absent.
func written(r *rand.Rand, v reflect.Value) (any, cbor.Value) {
	switch x := v.Interface().(type) {
	case api.Timestamp:
		seconds := float64(x.UnixMilli()) / 1000
		return seconds, &cbor.Tag{ID: 1, Value: cbor.Float64(seconds)}
	case api.Secret:
		return x.Reveal(), cbor.String(x.Reveal())
	case api.SecretBlob:
		return []byte(x.Reveal()), cbor.Slice(x.Reveal())
	case []byte:
		return x, cbor.Slice(x)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return written(r, v.Elem())
	case reflect.Struct:
		tree, item := map[string]any{}, cbor.Map{}
		for i := range v.NumField() {
			name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			switch {
			case name == "-":
			case options == "" && r != nil || !v.Field(i).IsZero():
				tree[name], item[name] = written(r, v.Field(i))
			case r != nil && r.IntN(4) == 0:
				tree[name], item[name] = nil, &cbor.Nil{}
			}
		}
		return tree, item
	case reflect.Slice:
		tree, item := []any{}, cbor.List{}
		for i := range v.Len() {
			a, b := written(r, v.Index(i))
			tree, item = append(tree, a), append(item, b)
		}
		return tree, item
	case reflect.String:
		return v.String(), cbor.String(v.String())
	case reflect.Bool:
		return v.Bool(), cbor.Bool(v.Bool())
	}
	if n := v.Int(); n < 0 {
		return n, cbor.NegInt(-n)
	}
	return v.Int(), cbor.Uint(v.Int())
}

// withoutNil drops members that are null, which count as absent.
func withoutNil(v cbor.Value) cbor.Value {
	switch v := v.(type) {
	case cbor.Map:
		out := cbor.Map{}
		for name, member := range v {
			switch member.(type) {
			case *cbor.Nil, *cbor.Undefined:
			default:
				out[name] = withoutNil(member)
			}
		}
		return out
	case cbor.List:
		out := cbor.List{}
		for _, element := range v {
			out = append(out, withoutNil(element))
		}
		return out
	}
	return v
}

// oddly writes an item in forms that are legal and not the shortest: long heads,
// indefinite lengths, chunks, smaller floats where they hold the number.
func oddly(r *rand.Rand, b []byte, v cbor.Value) []byte {
	head := func(major byte, n uint64) {
		switch r.IntN(4) {
		case 0:
			b = binary.BigEndian.AppendUint64(append(b, major<<5|27), n)
		case 1:
			if n <= math.MaxUint32 {
				b = binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
				return
			}
			fallthrough
		default:
			b = appendCBORHead(b, major, n)
		}
	}
	text := func(major byte, s string) {
		if r.IntN(3) > 0 {
			head(major, uint64(len(s)))
			b = append(b, s...)
			return
		}
		b = append(b, major<<5|31)
		for _, piece := range strings.SplitAfter(s, "a") {
			head(major, uint64(len(piece)))
			b = append(b, piece...)
		}
		b = append(b, cborBreak)
	}
	parts := func(major byte, n int, each func()) {
		indefinite := r.IntN(2) == 0
		if indefinite {
			b = append(b, major<<5|31)
		} else {
			head(major, uint64(n))
		}
		each()
		if indefinite {
			b = append(b, cborBreak)
		}
	}
	switch v := v.(type) {
	case cbor.Map:
		parts(cborMap, len(v), func() {
			for name, member := range v {
				text(cborText, name)
				b = oddly(r, b, member)
			}
		})
	case cbor.List:
		parts(cborList, len(v), func() {
			for _, element := range v {
				b = oddly(r, b, element)
			}
		})
	case cbor.String:
		text(cborText, string(v))
	case cbor.Slice:
		text(cborBytes, string(v))
	case cbor.Uint:
		head(cborUint, uint64(v))
	case cbor.NegInt:
		head(cborNegative, uint64(v)-1)
	case *cbor.Nil:
		b = append(b, 0xf6+byte(r.IntN(2)))
	case *cbor.Tag:
		head(cborTag, v.ID)
		b = oddly(r, b, v.Value)
	case cbor.Float64:
		switch f := float64(v); {
		case f == math.Trunc(f):
			return oddly(r, b, whole(int64(f)))
		case float64(float32(f)) == f:
			b = binary.BigEndian.AppendUint32(append(b, 0xfa), math.Float32bits(float32(f)))
		default:
			b = append(b, cbor.Encode(v)...)
		}
	default:
		b = append(b, cbor.Encode(v)...)
	}
	return b
}

func whole(n int64) cbor.Value {
	if n < 0 {
		return cbor.NegInt(-n)
	}
	return cbor.Uint(n)
}
