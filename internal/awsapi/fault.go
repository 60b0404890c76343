package awsapi

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Fault is one thing that is wrong with an input.
type Fault struct {
	Path    string // JSON path: spec.listeners[0].portMapping.port; empty: the document
	Value   string // what was there, shortened; empty: nothing
	Message string // continues the path: "must be at most 65535, not 70000"
}

func (f Fault) String() string {
	if f.Path == "" {
		return "the request body " + f.Message
	}
	return f.Path + " " + f.Message
}

// Faults is everything that is wrong with an input, as one error. Its message
// is for the caller.
type Faults []Fault

// maxFaults bounds a message, keptFaults the memory that a hostile document costs.
const (
	maxFaults  = 20
	keptFaults = 1000
)

func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d validation errors detected: ", len(f))
	for i, fault := range f {
		if i == maxFaults {
			fmt.Fprintf(&b, "; and %d more", len(f)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(fault.String())
	}
	return b.String()
}

// faultList collects faults up to a bound.
type faultList struct{ faults Faults }

// full says whether one more would be dropped.
func (l *faultList) full() bool { return len(l.faults) >= keptFaults }

func (l *faultList) add(path, value, format string, args ...any) {
	if !l.full() {
		l.faults = append(l.faults, Fault{Path: path, Value: value, Message: fmt.Sprintf(format, args...)})
	}
}

// others keeps those faults of a validation that reading has not blamed
// already: what stands above or below a place that could not be read is not
// blamed again for what is then missing.
func (f Faults) others(validation Faults) Faults {
	var kept Faults
	for _, v := range validation {
		if !slices.ContainsFunc(f, func(read Fault) bool { return within(read.Path, v.Path) || within(v.Path, read.Path) }) {
			kept = append(kept, v)
		}
	}
	return kept
}

// within reports whether path is at or below another.
func within(path, other string) bool {
	rest, under := strings.CutPrefix(path, other)
	return under && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// join appends a member to a path.
func join(path, member string) string {
	if path == "" {
		return member
	}
	return path + "." + member
}

// item appends a list index to a path.
func item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// quote shows what a caller sent, shortened.
func quote(s string) string { return fmt.Sprintf("%q", shorten(s)) }

// shorten bounds a string to what fits in a message.
func shorten(s string) string {
	const limit = 80
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit]) + "…"
}

// nearest finds the name that a misspelt one was probably meant to be, or "".
func nearest(name string, known []string) string {
	best, bestDistance := "", 3
	if len(name) <= 2 {
		bestDistance = 2
	}
	if len(name) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.EqualFold(name, k) {
			return k
		}
		if d := distance(name, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is Levenshtein's: insertions, deletions and replacements of bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
