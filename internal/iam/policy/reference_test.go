package policy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The second evaluator: policies as plain JSON, wildcards by recursion,
// the steps in the order of AWS's page on evaluation logic. It shares nothing
// with the first.

type anyMap = map[string]any

func listOf(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

var refVariable = regexp.MustCompile(`\$\{([^}]*)\}`)

// refText puts variables in; ok is false if one is unknown. Wildcards that come
// from values are quoted, those of the policy are kept as \x01 and \x02.
func refText(text string, values map[string][]string) (string, bool) {
	ok := true
	var out strings.Builder
	for text != "" {
		at := refVariable.FindStringSubmatchIndex(text)
		if at == nil {
			at = []int{len(text), len(text), 0, 0}
		}
		out.WriteString(strings.NewReplacer("*", "\x01", "?", "\x02").Replace(text[:at[0]]))
		if at[0] < len(text) {
			name := strings.ToLower(text[at[2]:at[3]])
			switch found := values[name]; {
			case name == "*" || name == "?" || name == "$":
				out.WriteString(name)
			case len(found) == 1:
				out.WriteString(found[0])
			default:
				ok = false
			}
		}
		text = text[at[1]:]
	}
	return out.String(), ok
}

func refLike(marked, value string) bool {
	switch {
	case marked == "":
		return value == ""
	case marked[0] == '\x01' && value == "":
		return refLike(marked[1:], "")
	case marked[0] == '\x01':
		return refLike(marked[1:], value) || refLike(marked, value[1:])
	}
	return value != "" && (marked[0] == '\x02' || marked[0] == value[0]) && refLike(marked[1:], value[1:])
}

func refARN(marked, value string) bool {
	if marked == "\x01" {
		marked = "arn:\x01"
	}
	have, want := strings.SplitN(value, ":", 6), strings.SplitN(marked, ":", 6)
	for len(want) < 6 {
		want = append(want, "\x01")
	}
	if len(have) < 6 {
		return false
	}
	for i := range want {
		if !refLike(want[i], have[i]) {
			return false
		}
	}
	return true
}

func refCompare(operator, operand, value string, values map[string][]string) (yes, known bool) {
	marked, known := refText(operand, values)
	literal := strings.NewReplacer("\x01", "*", "\x02", "?").Replace(marked)
	if !known {
		return false, false
	}
	number := func(s string) float64 { f, _ := strconv.ParseFloat(s, 64); return f }
	date := func(s string) float64 {
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return float64(t.Unix())
		}
		return number(s)
	}
	ordered := func(a, b float64, how string) bool {
		switch how {
		case "Equals":
			return a == b
		case "LessThan":
			return a < b
		case "LessThanEquals":
			return a <= b
		case "GreaterThan":
			return a > b
		}
		return a >= b
	}
	switch {
	case operator == "StringEquals":
		return literal == value, true
	case operator == "StringEqualsIgnoreCase":
		return strings.EqualFold(literal, value), true
	case operator == "StringLike":
		return refLike(marked, value), true
	case operator == "ArnLike" || operator == "ArnEquals":
		return refARN(marked, value), true
	case operator == "Bool":
		return strings.EqualFold(operand, value), true
	case operator == "BinaryEquals":
		a, _ := base64.StdEncoding.DecodeString(operand)
		b, err := base64.StdEncoding.DecodeString(value)
		return err == nil && string(a) == string(b), true
	case operator == "IpAddress": // the random policies have /8 and /32 alone
		if network, ok := strings.CutSuffix(operand, "/8"); ok {
			return strings.Split(network, ".")[0] == strings.Split(value, ".")[0], true
		}
		return operand == value, true
	case strings.HasPrefix(operator, "Numeric"):
		return ordered(number(value), number(operand), strings.TrimPrefix(operator, "Numeric")), true
	}
	return ordered(date(value), date(operand), strings.TrimPrefix(operator, "Date")), true
}

func refCondition(name, key string, operands []any, values map[string][]string, deny bool) bool {
	found := values[strings.ToLower(key)]
	if name == "Null" {
		return slices.ContainsFunc(operands, func(o any) bool { return fmt.Sprint(o) == fmt.Sprint(len(found) == 0) })
	}
	set, operator, quantified := strings.Cut(name, ":")
	if !quantified {
		set, operator = "", name
	}
	operator, optional := strings.CutSuffix(operator, "IfExists")
	positive := strings.Replace(operator, "Not", "", 1)
	negative := positive != operator
	one := func(value string) bool {
		any, unknown := false, false
		for _, o := range operands {
			yes, known := refCompare(positive, fmt.Sprint(o), value, values)
			any, unknown = any || yes, unknown || !known
		}
		if !negative {
			return any
		}
		return !any && (!unknown || deny)
	}
	if len(found) == 0 {
		return set == "ForAllValues" || optional || set == "" && negative
	}
	if set == "" && len(found) > 1 {
		return deny
	}
	met := 0
	for _, value := range found {
		if one(value) {
			met++
		}
	}
	return set == "ForAnyValue" && met > 0 || set != "ForAnyValue" && met == len(found)
}

// refMatches says whether a statement is about the request, its principal aside.
func refMatches(s anyMap, r Request) bool {
	deny := s["Effect"] == "Deny"
	for _, element := range []string{"Action", "Resource"} {
		negated := s["Not"+element] != nil
		list := s[element]
		if negated {
			list = s["Not"+element]
		}
		if list == nil {
			continue
		}
		hit, unknown := false, false
		for _, v := range listOf(list) {
			if element == "Action" {
				hit = hit || refLike(strings.NewReplacer("*", "\x01", "?", "\x02").Replace(strings.ToLower(v.(string))), strings.ToLower(r.Action))
				continue
			}
			marked, known := refText(v.(string), r.Values)
			unknown = unknown || !known
			hit = hit || v == "*" || known && refARN(marked, r.Resource)
		}
		if hit == negated || negated && unknown && !deny {
			return false
		}
	}
	conditions, _ := s["Condition"].(anyMap)
	for operator, keys := range conditions {
		for key, operands := range keys.(anyMap) {
			if !refCondition(operator, key, listOf(operands), r.Values, deny) {
				return false
			}
		}
	}
	return true
}

// refNames: "" or "account", "role", "caller".
func refNames(principal any, p Principal) string {
	best := ""
	var names []any
	if m, ok := principal.(anyMap); ok {
		names = listOf(m["AWS"])
	} else {
		names = []any{principal}
	}
	for _, n := range names {
		account := n == p.Account || n == "arn:aws:iam::"+p.Account+":root"
		switch {
		case n == p.ARN, account && p.Root:
			return "caller"
		case n == "*", n == p.Role && p.Role != "":
			best = "role"
		case account && best == "":
			best = "account"
		}
	}
	return best
}

// refDecide follows the flow chart from its beginning to its end.
func refDecide(r Request, identity, session []anyMap, boundary, resource anyMap, must bool) bool {
	statements := func(policies ...anyMap) (found []anyMap) {
		for _, p := range policies {
			if p != nil {
				for _, s := range listOf(p["Statement"]) {
					found = append(found, s.(anyMap))
				}
			}
		}
		return found
	}
	some := func(effect string, policies ...anyMap) bool {
		return slices.ContainsFunc(statements(policies...), func(s anyMap) bool { return s["Effect"] == effect && refMatches(s, r) })
	}
	// 1. An explicit deny in any of them ends it.
	if some("Deny", identity...) || some("Deny", session...) || some("Deny", boundary) {
		return false
	}
	reach := ""
	for _, s := range statements(resource) {
		if !refMatches(s, r) {
			continue
		}
		if s["Effect"] == "Deny" {
			if n := s["NotPrincipal"]; n != nil && refNames(n, r.Principal) != "caller" || n == nil && refNames(s["Principal"], r.Principal) != "" {
				return false
			}
			continue
		}
		rank := []string{"", "account", "role", "caller"}
		if n := refNames(s["Principal"], r.Principal); slices.Index(rank, n) > slices.Index(rank, reach) {
			reach = n
		}
	}
	limits := (boundary == nil || some("Allow", boundary)) && (len(session) == 0 || some("Allow", session...))
	own := (r.Principal.Root || some("Allow", identity...)) && limits
	// 2. Between accounts both sides must allow.
	if r.ResourceAccount != "" && r.ResourceAccount != r.Principal.Account {
		return own && reach != ""
	}
	// 3. A trust policy must allow in any case.
	if must && reach == "" {
		return false
	}
	// 4. In one account the resource may do it alone, or the principal's own side.
	return own || reach == "caller" || reach == "role" && limits
}

// random policies and requests, from a small world so that they often meet.
type maker struct{ *rand.Rand }

func pick[T any](m maker, from ...T) T { return from[m.IntN(len(from))] }

func several[T any](m maker, one func() T) any {
	if m.IntN(2) == 0 {
		return one()
	}
	list := make([]any, 1+m.IntN(3))
	for i := range list {
		list[i] = one()
	}
	return list
}

func (m maker) action() string {
	return pick(m, "*", "appmesh:*", "appmesh:Describe*", "appmesh:*Mesh", "APPMESH:createmesh", "appmesh:CreateMes?", "acm:*", "acm:ListCertificates", "*:*")
}

func (m maker) resource() string {
	return pick(m, "*", "arn:aws:appmesh:*:*:mesh/*", "arn:aws:appmesh:us-east-1:"+here+":mesh/shop", "arn:aws:*", "arn:aws:appmesh:us-east-1:*:mesh/${aws:PrincipalTag/team}",
		"arn:aws:appmesh:*:mesh/shop", "arn:aws:appmesh:*:*:mesh/s??p*", "arn:aws:acm:*", "arn:aws:appmesh:*:*:mesh/${x:none}*", "arn:aws:appmesh:*:${aws:PrincipalAccount}:*", "arn:aws:appmesh:*:*:mesh/${*}")
}

func (m maker) principal() any {
	if m.IntN(5) == 0 {
		return "*"
	}
	return anyMap{"AWS": several(m, func() string {
		return pick(m, "*", here, there, "arn:aws:iam::"+here+":root", alice.ARN, foreign.ARN, session.ARN, session.Role)
	})}
}

func (m maker) conditions() anyMap {
	all := anyMap{}
	for range m.IntN(3) {
		operand, operator := func() string {
			return pick(m, "shop", "SHOP", "s*", "web", "${aws:PrincipalTag/team}", "${x:none}", "?eb")
		}, ""
		switch m.IntN(8) {
		case 0:
			operator, operand = pick(m, "NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals"), func() string { return pick(m, "1", "2.5", "-3") }
			all[operator] = anyMap{"x:number": several(m, operand)}
			continue
		case 1:
			operator = pick(m, "DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals")
			all[operator] = anyMap{"aws:CurrentTime": several(m, func() string { return pick(m, "2026-05-01T12:00:00Z", "1777636801", "2026-05-01T11:00:00+01:00") })}
			continue
		case 2:
			all[pick(m, "IpAddress", "NotIpAddress", "IpAddressIfExists")] = anyMap{"aws:SourceIp": several(m, func() string { return pick(m, "10.0.0.0/8", "10.1.2.3", "192.0.0.0/8") })}
			continue
		case 3:
			all[pick(m, "Bool", "BoolIfExists", "Null")] = anyMap{pick(m, "aws:SecureTransport", "x:number"): several(m, func() string { return pick(m, "true", "false") })}
			continue
		case 4:
			all["BinaryEquals"] = anyMap{"x:binary": several(m, func() string { return pick(m, "QUJD", "QUJE") })}
			continue
		case 5:
			all[pick(m, "ArnLike", "ArnNotLike", "ArnEquals", "ArnNotEquals")] = anyMap{"aws:PrincipalArn": several(m, func() string {
				return pick(m, "arn:aws:iam::*:user/*", "arn:aws:iam::"+here+":*", session.Role, "arn:aws:sts:*")
			})}
			continue
		}
		operator = pick(m, "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike")
		operator = pick(m, "", "", "ForAllValues:", "ForAnyValue:") + operator + pick(m, "", "", "IfExists")
		all[operator] = anyMap{pick(m, "aws:PrincipalTag/team", "aws:TagKeys", "AWS:tagkeys", "x:none"): several(m, operand)}
	}
	return all
}

func (m maker) policy(use Use) anyMap {
	statements := make([]any, 1+m.IntN(2))
	for i := range statements {
		s := anyMap{"Effect": pick(m, "Allow", "Allow", "Deny"), pick(m, "Action", "Action", "NotAction"): several(m, m.action)}
		if use != Trust {
			s[pick(m, "Resource", "Resource", "NotResource")] = several(m, m.resource)
		}
		if c := m.conditions(); m.IntN(2) == 0 && len(c) > 0 {
			s["Condition"] = c
		}
		switch {
		case use == Identity:
		case s["Effect"] == "Deny" && m.IntN(3) == 0:
			s["NotPrincipal"] = anyMap{"AWS": several(m, func() string { return pick(m, here, alice.ARN, session.ARN) })}
		default:
			s["Principal"] = m.principal()
		}
		statements[i] = s
	}
	return anyMap{"Version": "2012-10-17", "Statement": statements}
}

func (m maker) request() Request {
	r := Request{Action: pick(m, "appmesh:CreateMesh", "appmesh:DescribeMesh", "acm:ListCertificates"), Principal: pick(m, alice, alice, session, session, foreign, root),
		Resource:        pick(m, "*", "arn:aws:appmesh:us-east-1:"+here+":mesh/shop", "arn:aws:appmesh:us-east-1:"+there+":mesh/web:a", "arn:aws:appmesh:us-east-1:"+here+":mesh/*"),
		ResourceAccount: pick(m, here, here, there, ""), Values: Values{}}
	arn := r.Principal.ARN
	if r.Principal.Role != "" {
		arn = r.Principal.Role
	}
	for key, value := range map[string][]string{
		"aws:principalarn": {arn}, "aws:principalaccount": {r.Principal.Account}, "aws:principaltag/team": {pick(m, "web", "shop", "*")}, "aws:tagkeys": {pick(m, "shop", "web")},
		"aws:sourceip": {pick(m, "10.1.2.3", "192.168.0.1")}, "aws:securetransport": {pick(m, "true", "false")}, "aws:currenttime": {pick(m, "2026-05-01T12:00:00Z", "2026-05-01T10:00:00Z")},
		"x:number": {pick(m, "1", "2.50", "3")}, "x:binary": {"QUJD"},
	} {
		if m.IntN(6) > 0 {
			r.Values[key] = value
		}
	}
	if m.IntN(3) == 0 {
		r.Values["aws:tagkeys"] = []string{"shop", pick(m, "web", "env")}
	}
	return r
}

// TestAsTheSecondEvaluator: 100,000 random policies and requests.
func TestAsTheSecondEvaluator(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(7, 100))}
	type made struct {
		plain anyMap
		read  Attached
	}
	pool := map[Use][]made{}
	for _, use := range []Use{Identity, Resource, Trust} {
		for range 4000 {
			plain := m.policy(use)
			text, err := json.Marshal(plain)
			if err != nil {
				t.Fatal(err)
			}
			pool[use] = append(pool[use], made{plain, attach(t, "p", string(text), use)})
		}
	}
	tally := map[string]int{}
	for i := range 100_000 {
		r := m.request()
		set, must := Set{}, m.IntN(8) == 0
		var identity, narrowed []anyMap
		var boundary, resource anyMap
		for range m.IntN(3) {
			p := pick(m, pool[Identity]...)
			identity, set.Identity = append(identity, p.plain), append(set.Identity, p.read)
		}
		if r.Principal.Role != "" && m.IntN(2) == 0 {
			p := pick(m, pool[Identity]...)
			narrowed, set.Session = []anyMap{p.plain}, []Attached{p.read}
		}
		if m.IntN(4) == 0 && !r.Principal.Root {
			p := pick(m, pool[Identity]...)
			boundary, set.Boundary = p.plain, &p.read
		}
		if must || m.IntN(2) == 0 {
			p := pick(m, pool[map[bool]Use{true: Trust, false: Resource}[must]]...)
			resource, set.Resource, set.MustAllow = p.plain, &p.read, must
		}
		want := refDecide(r, identity, narrowed, boundary, resource, must)
		got := Evaluate(r, set)
		if got.Allowed != want {
			t.Fatalf("case %d: %+v\nidentity %v\nsession %v\nboundary %v\nresource %v, must %v\ngot %+v, want %v", i, r, identity, narrowed, boundary, resource, must, got, want)
		}
		tally[fmt.Sprintf("allowed %v, explicit %v, %s", got.Allowed, got.Explicit, got.Layer)]++
	}
	if len(tally) != 11 {
		t.Errorf("not every outcome came about: %v", slices.Sorted(maps.Keys(tally)))
	}
	for outcome, n := range tally {
		t.Logf("%6d %s", n, outcome)
		if n < 100 {
			t.Errorf("%s came about %d times only", outcome, n)
		}
	}
}
