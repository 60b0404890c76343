package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// pattern is a value of a policy with its wildcards and variables.
type pattern struct {
	text  string // as written
	parts []part
}

// part is one thing of a pattern: text to be found as it is, a wildcard or a
// variable.
type part struct {
	text     string
	wildcard byte   // '*', '?' or 0
	variable string // a condition key in lower case
	absent   string // what a variable is without a value
	fallback bool   // absent is given
}

var errVariable = errors.New("a variable is ${key}, ${key, 'default'}, ${*}, ${?} or ${$}")

// compile reads a value. Without variables a dollar sign is one, without
// wildcards so are * and ?.
func compile(text string, wildcards, variables bool) (pattern, error) {
	p := pattern{text: text}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			p.parts = append(p.parts, part{text: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case variables && c == '$' && strings.HasPrefix(text[i:], "${"):
			end := strings.IndexByte(text[i:], '}')
			if end < 0 {
				return p, errVariable
			}
			v, err := variable(text[i+2 : i+end])
			if err != nil {
				return p, err
			}
			i += end
			if v.variable == "" {
				literal.WriteString(v.text)
				continue
			}
			flush()
			p.parts = append(p.parts, v)
		case wildcards && (c == '*' || c == '?'):
			flush()
			if n := len(p.parts); c != '*' || n == 0 || p.parts[n-1].wildcard != '*' {
				p.parts = append(p.parts, part{wildcard: c})
			}
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return p, nil
}

// variable reads what stands in braces.
func variable(inner string) (part, error) {
	switch inner {
	case "*", "?", "$":
		return part{text: inner}, nil
	}
	key, fallback, given := strings.Cut(inner, ",")
	key = strings.TrimSpace(key)
	if !isKey(key) {
		return part{}, errVariable
	}
	v := part{variable: strings.ToLower(key), fallback: given}
	if given {
		quoted := strings.TrimSpace(fallback)
		if len(quoted) < 2 || quoted[0] != '\'' || quoted[len(quoted)-1] != '\'' || strings.Contains(quoted[1:len(quoted)-1], "'") {
			return part{}, errVariable
		}
		v.absent = quoted[1 : len(quoted)-1]
	}
	return v, nil
}

// isKey says whether a text can name a condition key: prefix:name[/rest].
func isKey(s string) bool {
	prefix, name, ok := strings.Cut(s, ":")
	return ok && prefix != "" && name != "" && len(s) <= 256 && !strings.ContainsAny(s, "${}*?, '\"\t\n\r") &&
		strings.Trim(strings.ToLower(prefix), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// expand puts the values of variables in place, as text. It reports false if
// one has no value, or more than one.
func (p pattern) expand(values Values) ([]part, bool) {
	variables := false
	for _, piece := range p.parts {
		variables = variables || piece.variable != ""
	}
	if !variables {
		return p.parts, true
	}
	parts := make([]part, 0, len(p.parts))
	for _, piece := range p.parts {
		if piece.variable != "" {
			switch found := values[piece.variable]; {
			case len(found) == 1:
				piece = part{text: found[0]}
			case len(found) == 0 && piece.fallback:
				piece = part{text: piece.absent}
			default:
				return nil, false
			}
		}
		parts = append(parts, piece)
	}
	return parts, true
}

// glob matches text against parts without variables. The last * is the only
// one that is ever widened again, so it takes at most len(parts) * len(text).
func glob(parts []part, text string) bool {
	star, behind := -1, ""
	i := 0
	for {
		if i < len(parts) && parts[i].wildcard == '*' {
			star, behind = i, text
			i++
			continue
		}
		if i == len(parts) && text == "" {
			return true
		}
		if i < len(parts) {
			if rest, ok := parts[i].take(text); ok {
				text = rest
				i++
				continue
			}
		}
		if star < 0 || behind == "" {
			return false
		}
		_, size := utf8.DecodeRuneInString(behind)
		behind = behind[size:]
		text, i = behind, star+1
	}
}

// take cuts what a part stands for off the beginning of text.
func (p part) take(text string) (string, bool) {
	if p.wildcard == '?' {
		_, size := utf8.DecodeRuneInString(text)
		return text[size:], size > 0
	}
	return strings.CutPrefix(text, p.text)
}

// arnFields is how many parts an ARN has; the last has all colons that are left.
const arnFields = 6

// arnPattern is an ARN whose wildcards stay within its fields.
type arnPattern [arnFields]pattern

// compileARN reads an ARN or, completed with wildcards, the beginning of one.
func compileARN(text string, variables bool) (arnPattern, error) {
	var a arnPattern
	fields := splitARN(text)
	if text == "*" {
		fields = []string{"arn", "*"}
	}
	if fields[0] != "arn" || len(fields) < 2 {
		return a, fmt.Errorf("%q is neither an ARN nor *", text)
	}
	for len(fields) < arnFields {
		fields = append(fields, "*")
	}
	if strings.Trim(fields[2], "abcdefghijklmnopqrstuvwxyz0123456789-*?") != "" {
		return a, fmt.Errorf("%q has no service as its third part", text)
	}
	for i, field := range fields {
		var err error
		if a[i], err = compile(field, true, variables); err != nil {
			return a, fmt.Errorf("%q: %w", text, err)
		}
	}
	return a, nil
}

// splitARN cuts an ARN at its first five colons; one in a variable is none.
func splitARN(text string) []string {
	var fields []string
	begin, inside := 0, false
	for i := 0; i < len(text) && len(fields) < arnFields-1; i++ {
		switch {
		case strings.HasPrefix(text[i:], "${"):
			inside = true
		case text[i] == '}':
			inside = false
		case text[i] == ':' && !inside:
			fields = append(fields, text[begin:i])
			begin = i + 1
		}
	}
	return append(fields, text[begin:])
}

// match compares an ARN. It reports whether all variables had a value, too.
func (a arnPattern) match(arn string, values Values) (matched, known bool) {
	fields := strings.SplitN(arn, ":", arnFields)
	matched = len(fields) == arnFields
	for i, field := range a {
		parts, ok := field.expand(values)
		if !ok {
			return false, false
		}
		matched = matched && glob(parts, fields[i])
	}
	return matched, true
}
