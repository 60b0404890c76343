package awsapi

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Validate checks a structure of the generated types, or one with the same
// tags, against everything that its service model states: required members,
// lengths, ranges, patterns, enumerations, unions. It returns every fault, up
// to a bound. A plain string that is empty and a plain integer that is zero
// count as absent.
func Validate(v any) Faults {
	var c checker
	value := reflect.ValueOf(v)
	for value.Kind() == reflect.Pointer {
		if value.IsNil() {
			return nil
		}
		value = value.Elem()
	}
	c.structure(value, "")
	return c.faults
}

type checker struct{ faultList }

func (c *checker) structure(v reflect.Value, path string) {
	plan := planOf(v.Type())
	var set []string
	for i := range plan.fields {
		f := &plan.fields[i]
		member, at := v.Field(f.index), join(path, f.name)
		if absent(member) {
			if f.required {
				c.add(at, "", "is required")
			}
			continue
		}
		set = append(set, f.name)
		c.member(member, at, f.self, f.each)
	}
	if plan.union && len(set) != 1 {
		got := "none"
		if len(set) > 1 {
			got = strings.Join(set, " and ")
		}
		c.add(path, got, "must have exactly one of %s, not %s", strings.Join(plan.names, ", "), got)
	}
}

func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool:
		return false
	default:
		return v.IsZero()
	}
}

func (c *checker) member(v reflect.Value, path string, self, each limits) {
	switch v.Kind() {
	case reflect.Pointer:
		c.member(v.Elem(), path, self, each)
	case reflect.Struct:
		if secret, ok := secretIn(v); ok {
			c.secret(secret, path, self)
			return
		}
		if _, scalar := v.Interface().(interface{ MarshalJSON() ([]byte, error) }); !scalar {
			c.structure(v, path)
		}
	case reflect.Slice:
		if isBlob(v.Type()) {
			c.length(path, int64(v.Len()), self, "bytes long", "")
			return
		}
		c.length(path, int64(v.Len()), self, "items", strconv.Itoa(v.Len())+" items")
		for i := range v.Len() {
			c.member(v.Index(i), item(path, i), each, limits{})
		}
	case reflect.Map:
		c.length(path, int64(v.Len()), self, "entries", strconv.Itoa(v.Len())+" entries")
		for _, key := range v.MapKeys() {
			c.member(v.MapIndex(key), join(path, shorten(key.String())), each, limits{})
		}
	case reflect.String:
		c.text(v, path, self)
	case reflect.Int64, reflect.Int:
		c.number(v.Int(), path, self)
	}
}

func (c *checker) text(v reflect.Value, path string, l limits) {
	s := v.String()
	if enum, ok := v.Interface().(interface{ Enum() []string }); ok {
		if !slices.Contains(enum.Enum(), s) {
			c.add(path, shorten(s), "must be one of %s, not %s", strings.Join(enum.Enum(), ", "), quote(s))
		}
		return
	}
	c.length(path, int64(utf8.RuneCountInString(s)), l, "characters long", s)
	if l.pattern != nil && !l.pattern.MatchString(s) {
		c.add(path, shorten(s), "must match the pattern %s, not be %s", l.pattern, quote(s))
	}
}

// secret checks a text or bytes that no fault may show.
func (c *checker) secret(s secret, path string, l limits) {
	n, unit := len(s.value), "bytes long"
	if !s.blob {
		n, unit = utf8.RuneCountInString(s.value), "characters long"
	}
	c.length(path, int64(n), l, unit, "")
	if l.pattern != nil && !l.pattern.MatchString(s.value) {
		c.add(path, "", "must match the pattern %s", l.pattern)
	}
}

func (c *checker) length(path string, n int64, l limits, unit, value string) {
	verb := "have"
	if strings.HasSuffix(unit, " long") {
		verb = "be"
	}
	if l.min != nil && n < *l.min {
		c.add(path, shorten(value), "must %s at least %d %s, not %d", verb, *l.min, unit, n)
	}
	if l.max != nil && n > *l.max {
		c.add(path, shorten(value), "must %s at most %d %s, not %d", verb, *l.max, unit, n)
	}
}

func (c *checker) number(n int64, path string, l limits) {
	if l.min != nil && n < *l.min {
		c.add(path, strconv.FormatInt(n, 10), "must be at least %d, not %d", *l.min, n)
	}
	if l.max != nil && n > *l.max {
		c.add(path, strconv.FormatInt(n, 10), "must be at most %d, not %d", *l.max, n)
	}
}
