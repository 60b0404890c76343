package awsapi

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api"
)

// maxDepth bounds nesting, well above what any specification needs.
const maxDepth = 64

// maxMembers bounds the members of one object, well above what any structure has:
// their names are all kept, to find one that is given twice.
const maxMembers = 1000

// maxItems bounds the items of all lists of a document together, well above what
// any operation takes: an item of two bytes may cost a hundred in memory.
const maxItems = 20000

// Decode reads one JSON document into v, a pointer to a structure with the tags
// of the generated types. It is strict: names are matched exactly and an
// unknown one is a fault, as are duplicates, anything behind the document, bad
// UTF-8, fractions for integers, NUL characters and more than 64 levels. null
// counts as absent. The error is a Faults with all that is wrong; v then holds
// what could be read and must not be used.
func Decode(data []byte, v any) error {
	if faults, _ := decode(data, v); len(faults) > 0 {
		return faults
	}
	return nil
}

// DecodeValid is Decode and Validate in one: all faults of both.
func DecodeValid(data []byte, v any) error {
	faults, read := decode(data, v)
	if read {
		faults = append(faults, faults.others(Validate(v))...)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// decode also says whether the document could be read at all: if not, there is
// nothing to validate.
func decode(data []byte, v any) (Faults, bool) {
	if fault, bad := checkSyntax(data); bad {
		return Faults{fault}, false
	}
	d := decoder{in: newJSONDocument(data), whole: "a JSON object", bytes: textKind, times: numberKind}
	return d.decode(v)
}

// decodeCBOR is decode for a document in CBOR.
func decodeCBOR(data []byte, v any) (Faults, bool) {
	if err := checkCBOR(data); err != nil {
		return Faults{{Message: err.Error()}}, false
	}
	d := decoder{in: &cborDocument{data: data}, whole: "a CBOR map", bytes: bytesKind, times: timeKind}
	return d.decode(v)
}

// decoder reads a document whose syntax is known to be good.
type decoder struct {
	in    document
	whole string // what a document is
	bytes kind   // how bytes travel: base64 in a string or as they are
	times kind   // how times travel
	items int    // of lists, so far
	faultList
}

func (d *decoder) decode(v any) (Faults, bool) {
	if kind := d.in.peek(); kind != objectKind {
		return Faults{{Message: fmt.Sprintf("must be %s, not %s", d.whole, kind)}}, false
	}
	d.value(reflect.ValueOf(v).Elem(), "")
	return d.faults, true
}

func (d *decoder) value(v reflect.Value, path string) {
	kind := d.in.peek()
	if kind == nullKind { // absent
		d.in.skip()
		return
	}
	if v.CanAddr() && v.Kind() == reflect.Struct && d.scalar(v, kind, path) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(v.Elem(), path)
	case reflect.Struct:
		d.structure(v, path)
	case reflect.Slice:
		if isBlob(v.Type()) {
			if content, ok := d.blob(path); ok {
				v.SetBytes(content)
			}
			return
		}
		d.list(v, path)
	case reflect.Map:
		d.mapping(v, path)
	case reflect.String:
		if kind != textKind {
			d.mismatch(path, "a string")
			return
		}
		v.SetString(d.in.next().text)
	case reflect.Bool:
		if kind != boolKind {
			d.mismatch(path, "true or false")
			return
		}
		v.SetBool(d.in.next().yes)
	case reflect.Int64, reflect.Int:
		d.integer(v, kind, path)
	default:
		panic(fmt.Sprintf("awsapi: no way to read a %s", v.Type()))
	}
}

// scalar reads a structure that is a scalar on the wire; false: it is none.
func (d *decoder) scalar(v reflect.Value, kind kind, path string) bool {
	switch target := v.Addr().Interface().(type) {
	case *api.Secret:
		if kind != textKind {
			d.hiddenMismatch(path, textKind)
			return true
		}
		*target = api.NewSecret(d.in.next().text)
	case *api.SecretBlob:
		if content, ok := d.blob(path); ok {
			*target = api.NewSecretBlob(content)
		}
	case jsonUnmarshaler:
		if kind != d.times {
			d.mismatch(path, d.times.String())
			return true
		}
		text := d.in.next().text
		if err := target.UnmarshalJSON([]byte(text)); err != nil {
			d.add(path, shorten(text), "cannot be read: %v", err)
		}
	default:
		return false
	}
	return true
}

// blob reads bytes, which may be a secret: no fault shows them.
func (d *decoder) blob(path string) ([]byte, bool) {
	if d.in.peek() != d.bytes {
		d.hiddenMismatch(path, d.bytes)
		return nil, false
	}
	text := d.in.next().text
	if d.bytes == bytesKind {
		return []byte(text), true
	}
	content, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		d.add(path, "", "must be bytes in base64")
		return nil, false
	}
	return content, true
}

// mismatch blames a value of the wrong kind and skips it.
func (d *decoder) mismatch(path, want string) {
	kind := d.in.peek()
	shown := shorten(d.in.skip())
	got := kind.String()
	if kind == textKind || kind == numberKind {
		got += " " + shown
	}
	d.add(path, shown, "must be %s, not %s", want, got)
}

// hiddenMismatch is mismatch for what may be a secret: it does not show the value.
func (d *decoder) hiddenMismatch(path string, want kind) {
	kind := d.in.peek()
	d.in.skip()
	d.add(path, "", "must be %s, not %s", want, kind)
}

func (d *decoder) integer(v reflect.Value, kind kind, path string) {
	if kind != numberKind {
		d.mismatch(path, "an integer")
		return
	}
	text := d.in.next().text
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case strings.ContainsAny(text, ".eE"):
		d.add(path, shorten(text), "must be an integer, not %s", shorten(text))
	case err != nil:
		d.add(path, shorten(text), "does not fit in 64 bits: %s", shorten(text))
	default:
		v.SetInt(n)
	}
}

func (d *decoder) structure(v reflect.Value, path string) {
	if d.in.peek() != objectKind {
		d.mismatch(path, "an object")
		return
	}
	plan := planOf(v.Type())
	seen := make([]bool, v.NumField())
	d.members(func(name string) {
		f, known := plan.body[name]
		switch {
		case !known:
			shown := d.in.skip()
			if d.full() { // a hint takes its time
				return
			}
			d.add(join(path, shorten(name)), shorten(shown), "is not a known field%s", plan.hint(name))
		case seen[f.index]:
			d.in.skip()
			d.add(join(path, name), "", "is given twice")
		default:
			seen[f.index] = true
			d.value(v.Field(f.index), join(path, name))
		}
	})
}

// members calls read with each name of the object that comes next; read must
// consume the value.
func (d *decoder) members(read func(name string)) {
	d.in.next()
	for d.in.peek() != endKind {
		read(d.in.next().text)
	}
	d.in.next()
}

// hint says what an unknown field was probably meant to be.
func (p *structPlan) hint(name string) string {
	for _, f := range p.fields {
		if f.name == name && f.place == inPath {
			return " of the body: it is in the path"
		}
		if f.name == name && f.place == inQuery {
			return " of the body: it is a query parameter"
		}
	}
	if best := nearest(name, p.names); best != "" {
		return "; did you mean " + best + "?"
	}
	return ""
}

func (d *decoder) list(v reflect.Value, path string) {
	if d.in.peek() != listKind {
		d.mismatch(path, "a list")
		return
	}
	d.in.next()
	list := reflect.MakeSlice(v.Type(), 0, 0)
	for i := 0; d.in.peek() != endKind; i++ {
		if d.items++; d.items > maxItems {
			if d.in.skip(); d.items == maxItems+1 {
				d.add(path, "", "goes too far: a request may have %d items in all its lists", maxItems)
			}
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, item(path, i))
		list = reflect.Append(list, element)
	}
	d.in.next()
	v.Set(list)
}

func (d *decoder) mapping(v reflect.Value, path string) {
	if d.in.peek() != objectKind {
		d.mismatch(path, "an object")
		return
	}
	m := reflect.MakeMap(v.Type())
	d.members(func(name string) {
		key := reflect.ValueOf(name).Convert(v.Type().Key())
		if m.MapIndex(key).IsValid() {
			d.in.skip()
			d.add(join(path, shorten(name)), "", "is given twice")
			return
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, join(path, shorten(name)))
		m.SetMapIndex(key, element)
	})
	v.Set(m)
}

// element reads a value that cannot be absent.
func (d *decoder) element(v reflect.Value, path string) {
	if d.in.peek() == nullKind {
		d.in.skip()
		d.add(path, "null", "must not be null")
		return
	}
	d.value(v, path)
}
