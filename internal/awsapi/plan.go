package awsapi

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/fairlead/fairlead/api"
)

// structPlan is what the tags of a structure say, read once.
type structPlan struct {
	fields  []fieldPlan
	body    map[string]*fieldPlan // by JSON name
	names   []string              // JSON names, in order
	union   bool                  // exactly one member is set
	payload *fieldPlan            // the member that is the whole body of an answer, or nil
}

// fieldPlan is what the tags of a member say.
type fieldPlan struct {
	index    int
	name     string // in JSON, in the path or in the query
	place    place
	required bool
	omitzero bool // nothing is written of an absent one
	self     limits
	each     limits // of a list's items
}

// place is where a member travels.
type place int

const (
	inBody place = iota
	inPath
	inQuery
)

// limits are a scalar's bounds or a list's length.
type limits struct {
	min, max *int64
	pattern  *regexp.Regexp
}

// plans remembers planOf, a pure function of the type, as encoding packages do.
var plans sync.Map // reflect.Type → *structPlan

// planOf reads the tags of a structure. It panics on tags that make no sense:
// they are generated, and Mount reads them all before anything is served.
func planOf(t reflect.Type) *structPlan {
	if p, ok := plans.Load(t); ok {
		return p.(*structPlan)
	}
	p := &structPlan{body: map[string]*fieldPlan{}, fields: make([]fieldPlan, 0, t.NumField())}
	_, p.union = reflect.Zero(t).Interface().(interface{ Union() })
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		p.fields = append(p.fields, planField(t, field, i))
	}
	for i := range p.fields {
		f := &p.fields[i]
		if f.place == inBody {
			p.body[f.name] = f
			p.names = append(p.names, f.name)
		}
		if t.Field(f.index).Tag.Get("payload") == "true" {
			p.payload = f
		}
	}
	actual, _ := plans.LoadOrStore(t, p)
	return actual.(*structPlan)
}

func planField(t reflect.Type, field reflect.StructField, index int) fieldPlan {
	f := fieldPlan{index: index, required: field.Tag.Get("required") == "true"}
	name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	f.omitzero = options == "omitzero"
	switch {
	case field.Tag.Get("uri") != "":
		f.place, f.name = inPath, field.Tag.Get("uri")
	case field.Tag.Get("query") != "":
		f.place, f.name = inQuery, field.Tag.Get("query")
	case name == "" || name == "-":
		panic(fmt.Sprintf("awsapi: %s.%s has no name on the wire", t, field.Name))
	default:
		f.name = name
	}
	f.self = planLimits(t, field, "")
	f.each = planLimits(t, field, "each-")
	return f
}

func planLimits(t reflect.Type, field reflect.StructField, prefix string) limits {
	number := func(key string) *int64 {
		s, ok := field.Tag.Lookup(prefix + key)
		if !ok {
			return nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("awsapi: %s.%s: tag %s%s: %v", t, field.Name, prefix, key, err))
		}
		return &n
	}
	l := limits{min: number("min"), max: number("max")}
	if s, ok := field.Tag.Lookup(prefix + "pattern"); ok {
		l.pattern = regexp.MustCompile(s)
	}
	return l
}

// planAll reads the tags of a structure and of all that it holds.
func planAll(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		planAll(t.Elem())
	case reflect.Struct:
		switch reflect.New(t).Interface().(type) {
		case jsonUnmarshaler, *api.Secret, *api.SecretBlob:
			return
		}
		if _, known := plans.Load(t); known {
			return
		}
		planOf(t)
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				planAll(t.Field(i).Type)
			}
		}
	}
}

// jsonUnmarshaler is a structure that is a scalar on the wire, as api.Timestamp.
type jsonUnmarshaler interface{ UnmarshalJSON([]byte) error }

// isBlob says whether a slice is bytes.
func isBlob(t reflect.Type) bool { return t.Elem().Kind() == reflect.Uint8 }

// secret is an api.Secret or an api.SecretBlob, revealed.
type secret struct {
	value string
	blob  bool
}

func secretIn(v reflect.Value) (secret, bool) {
	switch s := v.Interface().(type) {
	case api.Secret:
		return secret{s.Reveal(), false}, true
	case api.SecretBlob:
		return secret{s.Reveal(), true}, true
	}
	return secret{}, false
}
