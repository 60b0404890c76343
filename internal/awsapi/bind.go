package awsapi

import (
	"encoding/xml"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// decode fills an operation's input from the path, the query and the body and
// validates it. Its error is a Faults with all that is wrong.
func (in incoming) decode(input any) error {
	v := reflect.ValueOf(input).Elem()
	plan := planOf(v.Type())
	var l faultList
	for i := range plan.fields {
		if f := &plan.fields[i]; f.place == inPath {
			l.bind(v.Field(f.index), f.name, in.labels[f.name])
		}
	}
	l.bindQuery(plan, v, in.query)
	faults, read := l.faults, true
	if len(in.body) > 0 {
		var more Faults
		more, read = decode(in.body, input)
		faults = append(faults, more...)
	}
	if read {
		faults = append(faults, faults.others(Validate(input))...)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (l *faultList) bindQuery(plan *structPlan, v reflect.Value, query []param) {
	fields := map[string]*fieldPlan{}
	var names []string
	for i := range plan.fields {
		if f := &plan.fields[i]; f.place == inQuery {
			fields[f.name], names = f, append(names, f.name)
		}
	}
	seen := map[string]bool{}
	for _, p := range query {
		f, known := fields[p.name]
		switch {
		case !known:
			hint := ""
			if best := nearest(p.name, names); best != "" {
				hint = "; did you mean " + best + "?"
			}
			l.add(shorten(p.name), shorten(p.value), "is not a known query parameter%s", hint)
		case seen[p.name]:
			l.add(p.name, shorten(p.value), "is given twice")
		case !utf8.ValidString(p.value):
			l.add(p.name, "", "is not UTF-8 text")
		default:
			l.bind(v.Field(f.index), f.name, p.value)
		}
		seen[p.name] = true
	}
}

// bind sets a member that travels as text.
func (l *faultList) bind(v reflect.Value, name, text string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int64, reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			l.add(name, shorten(text), "must be an integer, not %s", quote(text))
			return
		}
		v.SetInt(n)
	default:
		panic("awsapi: no way to read " + name + " from text")
	}
}

// payloadOf returns what an answer's body is made of: the member that the model
// calls the payload, or the whole output.
func payloadOf(out any) any {
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return out
	}
	if f := planOf(v.Elem().Type()).payload; f != nil {
		return v.Elem().Field(f.index).Interface()
	}
	return out
}

// encode writes an answer's body as the protocol has it.
func (p protocol) encode(out any) ([]byte, error) {
	if p == formQuery {
		return xml.Marshal(out)
	}
	return encode(out)
}

// encode writes an answer's body in JSON. Nothing is written as {}.
func encode(out any) ([]byte, error) {
	if v := reflect.ValueOf(out); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return []byte("{}"), nil
	}
	return json.Marshal(out)
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }
