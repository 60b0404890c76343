package agent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// environment reads variables by App Mesh's rules (facts/data-plane.md A):
// values are trimmed, an empty one counts as not set, booleans are Go's. It
// collects all that is wrong, so that a user mends it in one go.
type environment struct {
	lookup   func(name string) (string, bool)
	errs     []error
	warnings []string
}

func (e *environment) text(name string) string {
	value, _ := e.lookup(name)
	return strings.TrimSpace(value)
}

// first is the value of the first variable that is set.
func (e *environment) first(names ...string) (value, name string) {
	for _, name := range names {
		if value := e.text(name); value != "" {
			return value, name
		}
	}
	return "", ""
}

func (e *environment) or(name, otherwise string) string {
	if value := e.text(name); value != "" {
		return value
	}
	return otherwise
}

func (e *environment) fail(name, format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(name+": "+format, args...))
}

func (e *environment) warn(name, format string, args ...any) {
	e.warnings = append(e.warnings, fmt.Sprintf(name+": "+format, args...))
}

func (e *environment) boolean(name string, otherwise bool) bool {
	text := e.text(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		e.fail(name, "%q is neither true nor false; use 1 or 0", text)
	}
	return value
}

// integer is a number that shapes Envoy's bootstrap: a bad one is an error.
func (e *environment) integer(name string, otherwise, least, most int) int {
	text := e.text(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < least || value > most {
		e.fail(name, "%q is not a whole number from %d to %d", text, least, most)
		return otherwise
	}
	return value
}

func (e *environment) port(name string, otherwise int) int {
	return e.integer(name, otherwise, 1, 65535)
}

// lenient is a number of the agent itself. App Mesh's agent took its default
// for a bad one or one out of range, and so do we; but we say so.
func (e *environment) lenient(name string, otherwise, least, most int) int {
	text := e.text(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < least || value > most {
		e.warn(name, "%q is not a whole number from %d to %d; the default %d is used", text, least, most, otherwise)
		return otherwise
	}
	return value
}

func (e *environment) seconds(name string, otherwise, least, most int) time.Duration {
	return time.Duration(e.lenient(name, otherwise, least, most)) * time.Second
}

// ignored warns of variables that have no effect here.
func (e *environment) ignored(why string, names ...string) {
	for _, name := range names {
		if text := e.text(name); text != "" && text != "0" && !strings.EqualFold(text, "false") {
			e.warn(name, "has no effect: %s", why)
		}
	}
}

func (e *environment) err() error { return errors.Join(e.errs...) }
