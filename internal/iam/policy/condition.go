package policy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// quantifier says how the values of a key are taken.
type quantifier int

const (
	single quantifier = iota // the key has one value
	forAll
	forAny
)

// condition is one operator and key with its values.
type condition struct {
	quantifier quantifier
	negated    bool
	ifExists   bool
	null       bool
	key        string // in lower case
	operands   []operand
}

// operand compares a value of a request with one of a policy. It reports
// whether all variables had a value, too.
type operand func(value string, values Values) (matched, known bool)

// operator makes operands.
type operator struct {
	negated bool
	compile func(text string, variables bool) (operand, error)
}

// operatorNamed finds an operator without quantifier and IfExists.
func operatorNamed(name string) (operator, bool) {
	order := func(sign ...int) func(int) bool { return func(c int) bool { return slices.Contains(sign, c) } }
	switch name {
	case "StringEquals", "StringNotEquals":
		return operator{name == "StringNotEquals", equalText(func(a, b string) bool { return a == b })}, true
	case "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase":
		return operator{name == "StringNotEqualsIgnoreCase", equalText(strings.EqualFold)}, true
	case "StringLike", "StringNotLike":
		return operator{name == "StringNotLike", like}, true
	case "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike":
		return operator{strings.HasPrefix(name, "ArnNot"), likeARN}, true
	case "Bool":
		return operator{false, ordered(readBool, func(a, b bool) int { return map[bool]int{true: 0, false: 1}[a == b] }, order(0))}, true
	case "BinaryEquals":
		return operator{false, ordered(readBinary, strings.Compare, order(0))}, true
	case "IpAddress", "NotIpAddress":
		return operator{name == "NotIpAddress", inNetwork}, true
	}
	kind, rest := "Numeric", strings.TrimPrefix(name, "Numeric")
	if strings.HasPrefix(name, "Date") {
		kind, rest = "Date", strings.TrimPrefix(name, "Date")
	} else if rest == name {
		return operator{}, false
	}
	wanted, known := map[string][]int{"Equals": {0}, "NotEquals": {0}, "LessThan": {-1}, "LessThanEquals": {-1, 0}, "GreaterThan": {1}, "GreaterThanEquals": {1, 0}}[rest]
	o := operator{negated: rest == "NotEquals"}
	if kind == "Date" {
		o.compile = ordered(readDate, time.Time.Compare, order(wanted...))
	} else {
		o.compile = ordered(readNumber, func(a, b *big.Rat) int { return a.Cmp(b) }, order(wanted...))
	}
	return o, known
}

func equalText(equal func(a, b string) bool) func(string, bool) (operand, error) {
	return func(text string, variables bool) (operand, error) {
		p, err := compile(text, false, variables)
		return func(value string, values Values) (bool, bool) {
			parts, known := p.expand(values)
			var whole strings.Builder
			for _, piece := range parts {
				whole.WriteString(piece.text)
			}
			return known && equal(value, whole.String()), known
		}, err
	}
}

func like(text string, variables bool) (operand, error) {
	p, err := compile(text, true, variables)
	return func(value string, values Values) (bool, bool) {
		parts, known := p.expand(values)
		return known && glob(parts, value), known
	}, err
}

func likeARN(text string, variables bool) (operand, error) {
	arn, err := compileARN(text, variables)
	return arn.match, err
}

// ordered makes operands of what can be read and compared; what a request has
// that cannot be read is like nothing.
func ordered[T any](read func(string) (T, error), compare func(a, b T) int, wanted func(int) bool) func(string, bool) (operand, error) {
	return func(text string, _ bool) (operand, error) {
		bound, err := read(text)
		return func(value string, _ Values) (bool, bool) {
			v, err := read(value)
			return err == nil && wanted(compare(v, bound)), true
		}, err
	}
}

func readBool(text string) (bool, error) {
	switch {
	case strings.EqualFold(text, "true"):
		return true, nil
	case strings.EqualFold(text, "false"):
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

func readBinary(text string) (string, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("%q is not base64", text)
	}
	return string(b), nil
}

func readNumber(text string) (*big.Rat, error) {
	// No exponents: a short text must not make a huge number.
	n, ok := new(big.Rat).SetString(text)
	if !ok || len(text) > 40 || strings.Trim(text, "0123456789.-+") != "" {
		return nil, fmt.Errorf("%q is not a number", text)
	}
	return n, nil
}

// readDate reads ISO 8601 as W3C has it, or seconds since 1970.
func readDate(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && len(text) > 4 {
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date like 2026-01-31T12:00:00Z", text)
}

func inNetwork(text string, _ bool) (operand, error) {
	network, err := netip.ParsePrefix(text)
	if address, single := netip.ParseAddr(text); single == nil && address.Zone() == "" {
		network, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if err != nil {
		err = fmt.Errorf("%q is not an IP address or network", text)
	}
	return func(value string, _ Values) (bool, bool) {
		address, err := netip.ParseAddr(value)
		return err == nil && network.Contains(address.Unmap().WithZone("")), true
	}, err
}

func (r *reader) conditions(s *Statement) error {
	return r.object(func(name string) error {
		c, compile, err := readOperator(name)
		if err != nil {
			return r.fault("%v", err)
		}
		n := len(s.conditions)
		err = r.object(func(key string) error {
			if !isKey(key) {
				return r.fault("is not a condition key: it is prefix:Name")
			}
			c := c
			c.key = strings.ToLower(key)
			if slices.ContainsFunc(s.conditions[n:], func(o condition) bool { return o.key == c.key }) {
				return r.fault("is a condition key that is there twice, but for upper and lower case")
			}
			count := 0
			err := r.list(func() error {
				count++
				text, err := r.scalar()
				if err != nil {
					return err
				}
				o, err := compile(text, r.variables())
				if err != nil {
					return r.fault("is wrong: %v", err)
				}
				c.operands = append(c.operands, o)
				return nil
			})
			if err == nil && count == 0 {
				return r.fault("must have a value")
			}
			s.conditions = append(s.conditions, c)
			return err
		})
		return err
	})
}

// readOperator takes an operator's name apart.
func readOperator(name string) (c condition, compile func(string, bool) (operand, error), err error) {
	rest := name
	if base, ok := strings.CutPrefix(rest, "ForAllValues:"); ok {
		c.quantifier, rest = forAll, base
	} else if base, ok := strings.CutPrefix(rest, "ForAnyValue:"); ok {
		c.quantifier, rest = forAny, base
	}
	if rest == "Null" {
		c.null = true
		if c.quantifier != single {
			return c, nil, errors.New("is not a condition operator: Null takes no quantifier")
		}
		return c, ordered(readBool, func(a, b bool) int { return map[bool]int{true: 0, false: 1}[a == b] }, func(c int) bool { return c == 0 }), nil
	}
	rest, c.ifExists = strings.CutSuffix(rest, "IfExists")
	o, known := operatorNamed(rest)
	if !known {
		return c, nil, errors.New("is not a condition operator")
	}
	c.negated = o.negated
	return c, o.compile, nil
}

// scalar reads a string, a number or a boolean, as text.
func (r *reader) scalar() (string, error) {
	switch r.dec.PeekKind() {
	case '"', '0', 't', 'f':
		token, err := r.dec.ReadToken()
		if err != nil {
			return "", r.broken(err)
		}
		return token.String(), nil
	}
	return "", r.wrong("a string, a number or a boolean")
}

// holds says whether a condition is met. Where a policy leaves open what it
// means, a statement that denies is met and one that allows is not.
func (c condition) holds(values Values, deny bool) bool {
	found := values[c.key]
	if c.null {
		absent := strconv.FormatBool(len(found) == 0)
		return slices.ContainsFunc(c.operands, func(o operand) bool { yes, _ := o(absent, values); return yes })
	}
	if len(found) == 0 {
		switch c.quantifier {
		case forAll:
			return true
		case forAny:
			return c.ifExists
		}
		return c.ifExists || c.negated
	}
	each := func(value string) bool { return c.met(value, values, deny) }
	switch {
	case c.quantifier == forAny:
		return slices.ContainsFunc(found, each)
	case c.quantifier == single && len(found) > 1:
		return deny
	}
	return !slices.ContainsFunc(found, func(value string) bool { return !each(value) })
}

// met compares one value with all of a condition's.
func (c condition) met(value string, values Values, deny bool) bool {
	unknown := false
	for _, o := range c.operands {
		matched, known := o(value, values)
		if matched {
			return !c.negated
		}
		unknown = unknown || !known
	}
	// A negation of what cannot be told is met only by what denies.
	return c.negated && (deny || !unknown)
}
