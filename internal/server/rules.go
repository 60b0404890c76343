package server

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/store"
)

// fault is one thing that is wrong with a request, at a JSON path.
type fault struct {
	path    string
	message string
	rule    string // the id of the rule that found it
}

// faults gathers what is wrong, so that a caller learns all of it at once.
type faults []fault

func (f *faults) add(path, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if len(message) > maxFault {
		message = strings.ToValidUTF8(message[:maxFault], "") + "…"
	}
	*f = append(*f, fault{path: path, message: message})
}

// Bounds of a message: a large spec can be wrong in many places, and quote much.
const (
	maxFaults = 20
	maxFault  = 1000 // bytes
)

// err is nil without faults, else one BadRequestException that names all.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	var parts []string
	for i, one := range f {
		if i == maxFaults {
			parts = append(parts, fmt.Sprintf("and %d more", len(f)-i))
			break
		}
		if one.path != "" {
			one.message = one.path + ": " + one.message
		}
		parts = append(parts, one.message)
	}
	return appmesh.NewBadRequestException("%s", strings.Join(parts, "; "))
}

// rule is one check of a spec beyond what the service model states. Rules are
// pure: what needs other resources is a reference.
type rule[S any] struct {
	// id names the rule in the API reference and in the cases of the tests. The
	// rules of two kinds that say the same have one id.
	id string
	// source is a number of B.12 in the facts about App Mesh's API, another
	// section there, or the page that decided it.
	source string
	says   string
	check  func(spec *S, f *faults)
}

// check applies every rule to a spec.
func check[S any](rules []rule[S], spec *S) faults {
	var f faults
	for _, r := range rules {
		before := len(f)
		r.check(spec, &f)
		for i := range f[before:] {
			f[before+i].rule = r.id
		}
	}
	return f
}

// reference is one check of a spec against other resources, within the
// transaction that writes it. An error ends the request at once; faults are
// gathered.
type reference[S any] struct {
	id, source, says string
	check            func(tx *store.Tx, at location, spec *S, f *faults) error
}

// refer applies every reference check to a spec.
func refer[S any](references []reference[S], tx *store.Tx, at location, spec *S) error {
	var f faults
	for _, r := range references {
		if err := r.check(tx, at, spec, &f); err != nil {
			return err
		}
	}
	return f.err()
}

// member is the JSON name of the member that is set in a structure of which at
// most one should be; it is empty if v is nil or nothing is set.
func member(v any) string {
	names := members(v)
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// members are the JSON names of the pointers and slices that are set in *v.
func members(v any) []string {
	value := reflect.ValueOf(v)
	if value.Kind() != reflect.Pointer || value.IsNil() {
		return nil
	}
	value = value.Elem()
	var names []string
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			continue
		}
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// exactlyOne reports a fault unless one of the names is in set.
func exactlyOne(f *faults, path string, set []string, of ...string) {
	var found []string
	for _, name := range of {
		for _, have := range set {
			if have == name {
				found = append(found, name)
			}
		}
	}
	switch len(found) {
	case 1:
	case 0:
		f.add(path, "exactly one of %s must be set, but none is", strings.Join(of, ", "))
	default:
		f.add(path, "exactly one of %s must be set, but %s are", strings.Join(of, ", "), strings.Join(found, " and "))
	}
}

// wholeDuration reports a duration that lacks its unit or its value: without one
// of them nobody can say what it means.
func wholeDuration(f *faults, path string, d *appmesh.Duration) {
	switch {
	case d == nil:
	case d.Unit == nil:
		f.add(path+".unit", "must be set: a duration needs its unit and its value")
	case d.Value == nil:
		f.add(path+".value", "must be set: a duration needs its unit and its value")
	case *d.Unit == appmesh.DurationUnitS && *d.Value > maxSeconds:
		f.add(path+".value", "%d is more than the %d seconds that a proxy can count", *d.Value, int64(maxSeconds))
	case *d.Unit == appmesh.DurationUnitMs && *d.Value > maxSeconds*1000:
		f.add(path+".value", "%d is more than the %d milliseconds that a proxy can count", *d.Value, int64(maxSeconds)*1000)
	}
}

// maxSeconds is the largest google.protobuf.Duration, 10,000 years; Envoy
// counts in nanoseconds of 64 bits, which is 292 years.
const maxSeconds = 290 * 365 * 24 * 3600
