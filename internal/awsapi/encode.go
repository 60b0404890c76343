package awsapi

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"reflect"
	"unicode/utf8"

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
		return encodeCBOR(out)
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
func encodeCBOR(out any) ([]byte, error) {
	v := reflect.ValueOf(out)
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return appendCBORHead(nil, cborMap, 0), nil
	}
	var e cborEncoder
	e.value(v)
	return e.out, e.err
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

// cborEncoder writes values of the generated types, with the members that JSON
// has of them.
type cborEncoder struct {
	out []byte
	err error
}

func (e *cborEncoder) head(major byte, n uint64) { e.out = appendCBORHead(e.out, major, n) }

func (e *cborEncoder) text(s string) {
	if !utf8.ValidString(s) {
		e.err = errors.New("a text is not UTF-8")
	}
	e.out = appendCBORText(e.out, s)
}

func (e *cborEncoder) bytes(s string) {
	e.head(cborBytes, uint64(len(s)))
	e.out = append(e.out, s...)
}

func (e *cborEncoder) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			e.head(cborSimple, cborNull)
			return
		}
		e.value(v.Elem())
	case reflect.Struct:
		e.structure(v)
	case reflect.Slice:
		if isBlob(v.Type()) {
			e.bytes(string(v.Bytes()))
			return
		}
		e.head(cborList, uint64(v.Len()))
		for i := range v.Len() {
			e.value(v.Index(i))
		}
	case reflect.Map:
		e.head(cborMap, uint64(v.Len()))
		for _, key := range v.MapKeys() {
			e.text(key.String())
			e.value(v.MapIndex(key))
		}
	case reflect.String:
		e.text(v.String())
	case reflect.Bool:
		word := uint64(cborFalse)
		if v.Bool() {
			word = cborTrue
		}
		e.head(cborSimple, word)
	case reflect.Int64, reflect.Int:
		if n := v.Int(); n < 0 {
			e.head(cborNegative, uint64(-1-n))
		} else {
			e.head(cborUint, uint64(n))
		}
	default:
		panic(fmt.Sprintf("awsapi: no way to write a %s", v.Type()))
	}
}

func (e *cborEncoder) structure(v reflect.Value) {
	if s, ok := secretIn(v); ok {
		if s.blob {
			e.bytes(s.value)
		} else {
			e.text(s.value)
		}
		return
	}
	if t, ok := v.Interface().(api.Timestamp); ok {
		e.head(cborTag, cborTimeTag)
		e.out = append(e.out, cborSimple<<5|cborDouble)
		e.out = binary.BigEndian.AppendUint64(e.out, math.Float64bits(float64(t.UnixMilli())/1000))
		return
	}
	plan := planOf(v.Type())
	var present []*fieldPlan
	for i := range plan.fields {
		if f := &plan.fields[i]; f.place == inBody && !(f.omitzero && v.Field(f.index).IsZero()) {
			present = append(present, f)
		}
	}
	e.head(cborMap, uint64(len(present)))
	for _, f := range present {
		e.text(f.name)
		e.value(v.Field(f.index))
	}
}
