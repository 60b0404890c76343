package awsapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nesting, well above what any specification needs.
const maxDepth = 64

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
	d := decoder{in: jsontext.NewDecoder(bytes.NewReader(data))}
	if kind := d.in.PeekKind(); kind != '{' {
		return Faults{{Message: "must be a JSON object, not " + kindName(kind)}}, false
	}
	d.value(reflect.ValueOf(v).Elem(), "")
	return d.faults, true
}

// checkSyntax reads the whole document before any of it is used, so that the
// meaning of a prefix is never taken.
func checkSyntax(data []byte) (Fault, bool) {
	in := jsontext.NewDecoder(bytes.NewReader(data))
	for first := true; ; first = false {
		token, err := in.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && first:
			return Fault{Message: "is empty"}, true
		case errors.Is(err, io.EOF) && in.StackDepth() == 0:
			return Fault{}, false
		case err != nil:
			return syntaxFault(err), true
		case in.StackDepth() > maxDepth:
			return Fault{Message: fmt.Sprintf("is nested more than %d levels deep", maxDepth)}, true
		case token.Kind() == '"' && strings.ContainsRune(token.String(), 0):
			return Fault{Path: pointerPath(in.StackPointer()), Message: "must not contain a NUL character"}, true
		}
		if in.StackDepth() == 0 {
			if _, err := in.ReadToken(); !errors.Is(err, io.EOF) {
				return Fault{Message: "has something behind the end of its JSON document"}, true
			}
			return Fault{}, false
		}
	}
}

func syntaxFault(err error) Fault {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return Fault{Message: "is not valid JSON: " + err.Error()}
	}
	path := pointerPath(syntax.JSONPointer)
	if errors.Is(syntax.Err, jsontext.ErrDuplicateName) && path != "" {
		return Fault{Path: path, Message: "is given twice"}
	}
	where := ""
	if path != "" {
		where = " within " + path
	}
	return Fault{Message: fmt.Sprintf("is not valid JSON: %v%s after byte %d", syntax.Err, where, syntax.ByteOffset)}
}

// pointerPath writes a JSON pointer as the paths of faults are written.
func pointerPath(pointer jsontext.Pointer) string {
	path := ""
	for token := range pointer.Tokens() {
		if i, err := strconv.Atoi(token); err == nil && path != "" {
			path = item(path, i)
		} else {
			path = join(path, shorten(token))
		}
	}
	return path
}

// decoder reads a document whose syntax is known to be good.
type decoder struct {
	in *jsontext.Decoder
	faultList
}

func (d *decoder) value(v reflect.Value, path string) {
	if v.CanAddr() && v.Kind() == reflect.Struct {
		if scalar, ok := v.Addr().Interface().(jsonUnmarshaler); ok {
			d.scalar(scalar, path)
			return
		}
	}
	kind := d.in.PeekKind()
	if kind == 'n' { // absent
		d.skip()
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(v.Elem(), path)
	case reflect.Struct:
		d.structure(v, path)
	case reflect.Slice:
		d.list(v, path)
	case reflect.Map:
		d.mapping(v, path)
	case reflect.String:
		if token, ok := d.token(kind, '"', path); ok {
			v.SetString(token.String())
		}
	case reflect.Bool:
		if kind != 't' && kind != 'f' {
			d.mismatch(path, "true or false")
			return
		}
		token, _ := d.in.ReadToken()
		v.SetBool(token.Bool())
	case reflect.Int64, reflect.Int:
		d.integer(v, kind, path)
	default:
		panic(fmt.Sprintf("awsapi: no way to read a %s", v.Type()))
	}
}

// token reads a scalar of the wanted kind.
func (d *decoder) token(got, want jsontext.Kind, path string) (jsontext.Token, bool) {
	if got != want {
		d.mismatch(path, kindName(want))
		return jsontext.Token{}, false
	}
	token, err := d.in.ReadToken()
	return token, err == nil
}

// mismatch blames a value of the wrong kind and skips it.
func (d *decoder) mismatch(path, want string) {
	raw := d.skip()
	got := kindName(raw.Kind())
	if raw.Kind() == '"' || raw.Kind() == '0' {
		got += " " + shorten(string(raw))
	}
	d.add(path, shorten(string(raw)), "must be %s, not %s", want, got)
}

func (d *decoder) skip() jsontext.Value {
	raw, err := d.in.ReadValue()
	if err != nil { // the syntax was checked: not reached
		d.add("", "", "is not valid JSON: %v", err)
	}
	return raw
}

func (d *decoder) scalar(v jsonUnmarshaler, path string) {
	if d.in.PeekKind() == 'n' {
		d.skip()
		return
	}
	raw := d.skip()
	if err := v.UnmarshalJSON(raw); err != nil {
		d.add(path, shorten(string(raw)), "cannot be read: %v", err)
	}
}

func (d *decoder) integer(v reflect.Value, kind jsontext.Kind, path string) {
	if kind != '0' {
		d.mismatch(path, "an integer")
		return
	}
	token, err := d.in.ReadToken()
	if err != nil {
		return
	}
	text := token.String()
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
	if d.in.PeekKind() != '{' {
		d.mismatch(path, kindName('{'))
		return
	}
	plan := planOf(v.Type())
	d.members(func(name string) {
		f, known := plan.body[name]
		if !known {
			raw := d.skip()
			d.add(join(path, shorten(name)), shorten(string(raw)), "is not a known field%s", plan.hint(name))
			return
		}
		d.value(v.Field(f.index), join(path, name))
	})
}

// members calls read with each name of the object that comes next; read must
// consume the value.
func (d *decoder) members(read func(name string)) {
	if _, err := d.in.ReadToken(); err != nil {
		return
	}
	for d.in.PeekKind() == '"' {
		name, err := d.in.ReadToken()
		if err != nil {
			return
		}
		read(name.String())
	}
	d.end()
}

// end reads the bracket that PeekKind has just seen.
func (d *decoder) end() {
	if _, err := d.in.ReadToken(); err != nil { // the syntax was checked: not reached
		d.add("", "", "is not valid JSON: %v", err)
	}
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
	if d.in.PeekKind() != '[' {
		d.mismatch(path, kindName('['))
		return
	}
	if _, err := d.in.ReadToken(); err != nil {
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, 0)
	for i := 0; d.in.PeekKind() != ']'; i++ {
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, item(path, i))
		list = reflect.Append(list, element)
	}
	d.end()
	v.Set(list)
}

func (d *decoder) mapping(v reflect.Value, path string) {
	if d.in.PeekKind() != '{' {
		d.mismatch(path, kindName('{'))
		return
	}
	m := reflect.MakeMap(v.Type())
	d.members(func(name string) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, join(path, shorten(name)))
		m.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), element)
	})
	v.Set(m)
}

// element reads a value that cannot be absent.
func (d *decoder) element(v reflect.Value, path string) {
	if d.in.PeekKind() == 'n' {
		d.skip()
		d.add(path, "null", "must not be null")
		return
	}
	d.value(v, path)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	return "something else"
}
