package awsapi

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"math"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/api"
)

// revealed lets secrets go over the wire in JSON: here, and nowhere else.
var revealed = json.WithMarshalers(json.JoinMarshalers(
	json.MarshalToFunc(func(e *jsontext.Encoder, s api.Secret) error {
		return e.WriteToken(jsontext.String(s.Reveal()))
	}),
	json.MarshalToFunc(func(e *jsontext.Encoder, s api.SecretBlob) error {
		return e.WriteToken(jsontext.String(base64.StdEncoding.EncodeToString([]byte(s.Reveal()))))
	}),
))

// encode writes an answer's body as the protocol has it.
func (p protocol) encode(out any) ([]byte, error) {
	switch p {
	case formQuery:
		return xml.Marshal(out)
	case rpcCBOR:
		return encodeCBOR(out), nil
	}
	return encode(out)
}

// encode writes an answer's body in JSON. Nothing is written as {}.
func encode(out any) ([]byte, error) {
	if v := reflect.ValueOf(out); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return []byte("{}"), nil
	}
	return json.Marshal(out, revealed)
}

// encodeCBOR writes an answer's body in CBOR: a map, empty for nothing.
func encodeCBOR(out any) []byte {
	v := reflect.ValueOf(out)
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return appendCBORHead(nil, cborMap, 0)
	}
	return appendCBOR(nil, v)
}

// appendCBORHead appends the shortest head of a number or a length.
func appendCBORHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendCBORText(b []byte, s string) []byte {
	return append(appendCBORHead(b, cborText, uint64(len(s))), s...)
}

func appendCBORBytes(b []byte, s string) []byte {
	return append(appendCBORHead(b, cborBytes, uint64(len(s))), s...)
}

// appendCBOR writes a value of the generated types with the members that JSON
// has of it.
func appendCBOR(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, cborSimple<<5|cborNull)
		}
		return appendCBOR(b, v.Elem())
	case reflect.Struct:
		return appendCBORStruct(b, v)
	case reflect.Slice:
		if isBlob(v.Type()) {
			return appendCBORBytes(b, string(v.Bytes()))
		}
		b = appendCBORHead(b, cborList, uint64(v.Len()))
		for i := range v.Len() {
			b = appendCBOR(b, v.Index(i))
		}
		return b
	case reflect.Map:
		b = appendCBORHead(b, cborMap, uint64(v.Len()))
		for _, key := range v.MapKeys() {
			b = appendCBOR(appendCBORText(b, key.String()), v.MapIndex(key))
		}
		return b
	case reflect.String:
		return appendCBORText(b, v.String())
	case reflect.Bool:
		if v.Bool() {
			return append(b, cborSimple<<5|cborTrue)
		}
		return append(b, cborSimple<<5|cborFalse)
	case reflect.Int64, reflect.Int:
		if n := v.Int(); n < 0 {
			return appendCBORHead(b, cborNegative, uint64(-1-n))
		}
		return appendCBORHead(b, cborUint, uint64(v.Int()))
	}
	panic(fmt.Sprintf("awsapi: no way to write a %s", v.Type()))
}

func appendCBORStruct(b []byte, v reflect.Value) []byte {
	if s, ok := secretIn(v); ok {
		if s.blob {
			return appendCBORBytes(b, s.value)
		}
		return appendCBORText(b, s.value)
	}
	if t, ok := v.Interface().(api.Timestamp); ok {
		b = append(b, cborTag<<5|cborTimeTag, cborSimple<<5|cborDouble)
		return binary.BigEndian.AppendUint64(b, math.Float64bits(float64(t.UnixMilli())/1000))
	}
	plan := planOf(v.Type())
	var present []*fieldPlan
	for i := range plan.fields {
		if f := &plan.fields[i]; f.place == inBody && !(f.omitzero && v.Field(f.index).IsZero()) {
			present = append(present, f)
		}
	}
	b = appendCBORHead(b, cborMap, uint64(len(present)))
	for _, f := range present {
		b = appendCBOR(appendCBORText(b, f.name), v.Field(f.index))
	}
	return b
}
