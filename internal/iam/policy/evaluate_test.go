package policy

import (
	"strings"
	"testing"
)

const (
	here  = "111122223333"
	there = "444455556666"
	node  = "arn:aws:appmesh:us-east-1:" + here + ":mesh/shop/virtualNode/web"
)

var (
	alice   = Principal{ARN: "arn:aws:iam::" + here + ":user/alice", Account: here}
	foreign = Principal{ARN: "arn:aws:iam::" + there + ":user/eve", Account: there}
	root    = Principal{ARN: "arn:aws:iam::" + here + ":root", Account: here, Root: true}
	session = Principal{ARN: "arn:aws:sts::" + here + ":assumed-role/deploy/ci", Role: "arn:aws:iam::" + here + ":role/deploy", Account: here}
)

// statement wraps one in a document of the version that has variables. For
// reading's sake its double quotes are single ones, and its single ones ’.
func statement(inside string) string {
	return `{"Version":"2012-10-17","Statement":{` + strings.NewReplacer("'", `"`, "’", "'").Replace(inside) + `}}`
}

func attach(t *testing.T, name, text string, use Use) Attached {
	t.Helper()
	d, err := Parse([]byte(text), use)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return Attached{name, d}
}

const everything = `'Effect':'Allow','Action':'*','Resource':'*'`

// TestStatements: one identity-based policy, from what AWS documents of each
// element; the request is appmesh:DescribeVirtualNode on node unless it says so.
func TestStatements(t *testing.T) {
	allow := `'Effect':'Allow','Action':'*','Resource':'*','Condition':`
	for _, test := range []struct {
		name, statement string
		want            bool
	}{
		{"everything", everything, true},
		{"the action", `'Effect':'Allow','Action':'appmesh:DescribeVirtualNode','Resource':'*'`, true},
		{"actions know no case", `'Effect':'Allow','Action':'AppMesh:describevirtualnode','Resource':'*'`, true},
		{"a wildcard of actions", `'Effect':'Allow','Action':['acm:*','appmesh:Describe*'],'Resource':'*'`, true},
		{"one letter", `'Effect':'Allow','Action':'appmesh:DescribeVirtualNod?','Resource':'*'`, true},
		{"a letter too many", `'Effect':'Allow','Action':'appmesh:DescribeVirtualNode?','Resource':'*'`, false},
		{"another action", `'Effect':'Allow','Action':'appmesh:UpdateVirtualNode','Resource':'*'`, false},
		{"another service", `'Effect':'Allow','Action':'acm:*','Resource':'*'`, false},
		{"not the action", `'Effect':'Allow','NotAction':'appmesh:Describe*','Resource':'*'`, false},
		{"not another", `'Effect':'Allow','NotAction':'appmesh:Delete*','Resource':'*'`, true},
		{"the resource", `'Effect':'Allow','Action':'*','Resource':'` + node + `'`, true},
		{"resources know case", `'Effect':'Allow','Action':'*','Resource':'` + strings.ReplaceAll(node, "web", "Web") + `'`, false},
		{"a wildcard in the last field", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:us-east-1:` + here + `:mesh/shop/*'`, true},
		{"a wildcard does not cross fields", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:mesh/shop/virtualNode/web'`, false},
		{"an incomplete ARN is completed", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh'`, true},
		{"any region", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/*/virtualNode/web'`, true},
		{"not this resource", `'Effect':'Allow','Action':'*','NotResource':'` + node + `'`, false},
		{"not another resource", `'Effect':'Allow','Action':'*','NotResource':'` + node + `2'`, true},
		{"a variable", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/shop/virtualNode/${aws:PrincipalTag/team}'`, true},
		{"a variable without value", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/shop/virtualNode/${aws:PrincipalTag/none}*'`, false},
		{"its default", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/shop/virtualNode/${aws:PrincipalTag/none, ’web’}'`, true},
		{"negated without value", `'Effect':'Allow','Action':'*','NotResource':'arn:aws:appmesh:*:*:mesh/${aws:PrincipalTag/none}'`, false},
		{"a value is no pattern", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/shop/virtualNode/${aws:PrincipalTag/star}'`, false},
		{"a literal star", `'Effect':'Allow','Action':'*','Resource':'arn:aws:appmesh:*:*:mesh/shop/virtualNode/${*}'`, false},

		{"StringEquals", allow + `{'StringEquals':{'aws:PrincipalTag/team':'web'}}`, true},
		{"StringEquals, keys know no case", allow + `{'StringEquals':{'AWS:principaltag/TEAM':'web'}}`, true},
		{"StringEquals, values do", allow + `{'StringEquals':{'aws:PrincipalTag/team':'Web'}}`, false},
		{"StringEquals has no wildcards", allow + `{'StringEquals':{'aws:PrincipalTag/team':'w*'}}`, false},
		{"values are alternatives", allow + `{'StringEquals':{'aws:PrincipalTag/team':['db','web']}}`, true},
		{"keys are all required", allow + `{'StringEquals':{'aws:PrincipalTag/team':'web','aws:PrincipalAccount':'` + there + `'}}`, false},
		{"operators are all required", allow + `{'StringEquals':{'aws:PrincipalTag/team':'web'},'Bool':{'aws:SecureTransport':'true'}}`, false},
		{"StringNotEquals", allow + `{'StringNotEquals':{'aws:PrincipalTag/team':['db','ops']}}`, true},
		{"StringNotEquals, one of them", allow + `{'StringNotEquals':{'aws:PrincipalTag/team':['db','web']}}`, false},
		{"StringEqualsIgnoreCase", allow + `{'StringEqualsIgnoreCase':{'aws:PrincipalTag/team':'WEB'}}`, true},
		{"StringNotEqualsIgnoreCase", allow + `{'StringNotEqualsIgnoreCase':{'aws:PrincipalTag/team':'WEB'}}`, false},
		{"StringLike", allow + `{'StringLike':{'aws:PrincipalTag/team':'?e*'}}`, true},
		{"StringNotLike", allow + `{'StringNotLike':{'aws:PrincipalTag/team':'?e*'}}`, false},
		{"a variable in a value", allow + `{'StringEquals':{'aws:PrincipalTag/team':'${aws:ResourceTag/team}'}}`, true},
		{"a negation of an unknown variable", allow + `{'StringNotEquals':{'aws:PrincipalTag/team':'${aws:ResourceTag/none}'}}`, false},
		{"a missing key", allow + `{'StringEquals':{'aws:PrincipalTag/none':'x'}}`, false},
		{"a missing key, negated", allow + `{'StringNotEquals':{'aws:PrincipalTag/none':'x'}}`, true},
		{"a missing key, IfExists", allow + `{'StringEqualsIfExists':{'aws:PrincipalTag/none':'x'}}`, true},
		{"IfExists of what exists", allow + `{'StringEqualsIfExists':{'aws:PrincipalTag/team':'x'}}`, false},
		{"ArnLike", allow + `{'ArnLike':{'aws:PrincipalArn':'arn:aws:iam::*:user/*'}}`, true},
		{"ArnEquals is ArnLike", allow + `{'ArnEquals':{'aws:PrincipalArn':'arn:aws:iam::*:user/*'}}`, true},
		{"ArnLike does not cross fields", allow + `{'ArnLike':{'aws:PrincipalArn':'arn:aws:iam:*:user/alice'}}`, false},
		{"ArnNotLike", allow + `{'ArnNotLike':{'aws:PrincipalArn':'arn:aws:iam::*:role/*'}}`, true},
		{"ArnNotEquals", allow + `{'ArnNotEquals':{'aws:PrincipalArn':'arn:aws:iam::*:user/*'}}`, false},
		{"NumericLessThan", allow + `{'NumericLessThan':{'x:days':31}}`, true},
		{"NumericLessThan its own", allow + `{'NumericLessThan':{'x:days':'30'}}`, false},
		{"NumericLessThanEquals", allow + `{'NumericLessThanEquals':{'x:days':'30.0'}}`, true},
		{"NumericGreaterThan", allow + `{'NumericGreaterThan':{'x:days':'29.99'}}`, true},
		{"NumericGreaterThanEquals", allow + `{'NumericGreaterThanEquals':{'x:days':'30.01'}}`, false},
		{"NumericEquals", allow + `{'NumericEquals':{'x:days':'30.00'}}`, true},
		{"NumericNotEquals", allow + `{'NumericNotEquals':{'x:days':'30'}}`, false},
		{"a number that is none", allow + `{'NumericEquals':{'aws:PrincipalTag/team':'30'}}`, false},
		{"DateLessThan", allow + `{'DateLessThan':{'aws:CurrentTime':'2026-06-01T00:00:00Z'}}`, true},
		{"DateLessThan, seconds", allow + `{'DateLessThan':{'aws:CurrentTime':'1700000000'}}`, false},
		{"DateGreaterThan", allow + `{'DateGreaterThan':{'aws:CurrentTime':'2026-01-01'}}`, true},
		{"DateGreaterThan, another zone", allow + `{'DateGreaterThan':{'aws:CurrentTime':'2026-05-01T11:59:59-01:00'}}`, false},
		{"DateEquals", allow + `{'DateEquals':{'aws:CurrentTime':'2026-05-01T14:00:00+02:00'}}`, true},
		{"DateNotEquals", allow + `{'DateNotEquals':{'aws:CurrentTime':'2026-05-01T12:00:00Z'}}`, false},
		{"DateLessThanEquals", allow + `{'DateLessThanEquals':{'aws:CurrentTime':'2026-05-01T12:00:00Z'}}`, true},
		{"DateGreaterThanEquals", allow + `{'DateGreaterThanEquals':{'aws:CurrentTime':'2026-05-01T12:00:01Z'}}`, false},
		{"Bool", allow + `{'Bool':{'aws:SecureTransport':false}}`, true},
		{"Bool, a missing key", allow + `{'Bool':{'aws:MultiFactorAuthPresent':'false'}}`, false},
		{"BoolIfExists", allow + `{'BoolIfExists':{'aws:MultiFactorAuthPresent':'true'}}`, true},
		{"IpAddress", allow + `{'IpAddress':{'aws:SourceIp':['192.0.2.0/24','2001:db8::/32']}}`, true},
		{"IpAddress, one", allow + `{'IpAddress':{'aws:SourceIp':'192.0.2.8'}}`, false},
		{"NotIpAddress", allow + `{'NotIpAddress':{'aws:SourceIp':'192.0.2.0/24'}}`, false},
		{"BinaryEquals", allow + `{'BinaryEquals':{'x:binary':'QUJD'}}`, true},
		{"BinaryEquals, another", allow + `{'BinaryEquals':{'x:binary':'QUJE'}}`, false},
		{"Null of what is there", allow + `{'Null':{'aws:PrincipalTag/team':'true'}}`, false},
		{"not Null of what is there", allow + `{'Null':{'aws:PrincipalTag/team':false}}`, true},
		{"Null of what is missing", allow + `{'Null':{'aws:TokenIssueTime':'true'}}`, true},
		{"ForAllValues", allow + `{'ForAllValues:StringEquals':{'aws:TagKeys':['env','team','x']}}`, true},
		{"ForAllValues, one is not", allow + `{'ForAllValues:StringEquals':{'aws:TagKeys':['env']}}`, false},
		{"ForAllValues of none", allow + `{'ForAllValues:StringEquals':{'x:none':'a'}}`, true},
		{"ForAnyValue", allow + `{'ForAnyValue:StringLike':{'aws:TagKeys':'t*'}}`, true},
		{"ForAnyValue of none", allow + `{'ForAnyValue:StringNotEquals':{'x:none':'a'}}`, false},
		{"ForAnyValue, not one", allow + `{'ForAnyValue:StringNotEquals':{'aws:TagKeys':'env'}}`, true},
		{"ForAllValues, not one", allow + `{'ForAllValues:StringNotEquals':{'aws:TagKeys':'env'}}`, false},
		{"several values without a quantifier", allow + `{'StringEquals':{'aws:TagKeys':'env'}}`, false},
		{"several values, negated", allow + `{'StringNotEquals':{'aws:TagKeys':'x'}}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := statement(test.statement)
			r := Request{Action: "appmesh:DescribeVirtualNode", Resource: node, Principal: alice, Values: requestValues()}
			got := Evaluate(r, Set{Identity: []Attached{attach(t, "p", text, Identity)}})
			if got.Allowed != test.want {
				t.Errorf("%s\ngot %+v", text, got)
			}
			// What denies is never weaker than what allows.
			denied := Evaluate(r, Set{Identity: []Attached{attach(t, "all", statement(everything), Identity),
				attach(t, "p", strings.Replace(text, "Allow", "Deny", 1), Identity)}})
			if test.want && denied.Allowed {
				t.Errorf("as a denial it does not apply")
			}
		})
	}
}

func requestValues() Values {
	return Values{
		"aws:principalarn": {alice.ARN}, "aws:principalaccount": {here}, "aws:principaltag/team": {"web"}, "aws:principaltag/star": {"*"},
		"aws:resourcetag/team": {"web"}, "aws:tagkeys": {"env", "team"}, "aws:sourceip": {"192.0.2.7"}, "aws:securetransport": {"false"},
		"aws:currenttime": {"2026-05-01T12:00:00Z"}, "x:days": {"30"}, "x:binary": {"QUJD"},
	}
}

// TestLayers: identity, boundary, session and resource together.
func TestLayers(t *testing.T) {
	identity := func(s string) *Attached { a := attach(t, "own", statement(s), Identity); return &a }
	resource := func(s string) *Attached { a := attach(t, "theirs", statement(s), Resource); return &a }
	all, other := identity(everything), identity(`'Effect':'Allow','Action':'acm:*','Resource':'*'`)
	deny := identity(`'Sid':'No','Effect':'Deny','Action':'appmesh:*','Resource':'*'`)
	grant := func(to string) *Attached {
		return resource(`'Effect':'Allow','Principal':` + to + `,'Action':'appmesh:*','Resource':'*'`)
	}
	for _, test := range []struct {
		name                          string
		caller                        Principal
		own, boundary, session, their *Attached
		must                          bool
		want                          bool
		because                       string
	}{
		{"nothing", alice, nil, nil, nil, nil, false, false, "because no identity-based policy allows the appmesh:X action"},
		{"its own policy", alice, all, nil, nil, nil, false, true, "because an identity-based policy allows the appmesh:X action"},
		{"root", root, nil, nil, nil, nil, false, true, "because the root of the account needs no policy"},
		{"an explicit deny", alice, deny, nil, nil, grant("'*'"), false, false, "with an explicit deny in an identity-based policy"},
		{"a boundary that has it", alice, all, all, nil, nil, false, true, "because an identity-based policy allows the appmesh:X action"},
		{"a boundary that has not", alice, all, other, nil, nil, false, false, "because no permissions boundary allows the appmesh:X action"},
		{"a boundary gives nothing", alice, nil, all, nil, nil, false, false, "because no identity-based policy allows the appmesh:X action"},
		{"a boundary that denies", alice, all, deny, nil, nil, false, false, "with an explicit deny in a permissions boundary"},
		{"a session that has it", session, all, nil, all, nil, false, true, "because an identity-based policy allows the appmesh:X action"},
		{"a session that has not", session, all, nil, other, nil, false, false, "because no session policy allows the appmesh:X action"},
		{"a session gives nothing", session, other, nil, all, nil, false, false, "because no identity-based policy allows the appmesh:X action"},
		{"a session that denies", session, all, nil, deny, nil, false, false, "with an explicit deny in a session policy"},
		{"the resource, to the user", alice, nil, nil, nil, grant(`{'AWS':'` + alice.ARN + `'}`), false, true, "because a resource-based policy allows the appmesh:X action"},
		{"the resource, to the user, beyond the boundary", alice, nil, other, nil, grant(`{'AWS':'` + alice.ARN + `'}`), false, true, "because a resource-based policy allows the appmesh:X action"},
		{"the resource, to everybody, not beyond the boundary", alice, nil, other, nil, grant(`'*'`), false, false, "because no permissions boundary allows the appmesh:X action"},
		{"the resource, to another", alice, nil, nil, nil, grant(`{'AWS':'` + alice.ARN + `2'}`), false, false, "because no identity-based policy allows the appmesh:X action"},
		{"the resource, to the account", alice, nil, nil, nil, grant(`{'AWS':'` + here + `'}`), false, false, "because no identity-based policy allows the appmesh:X action"},
		{"the resource, to the role", session, nil, nil, nil, grant(`{'AWS':'` + session.Role + `'}`), false, true, "because a resource-based policy allows the appmesh:X action"},
		{"the resource, to the role, not beyond the session", session, nil, nil, other, grant(`{'AWS':'` + session.Role + `'}`), false, false, "because no session policy allows the appmesh:X action"},
		{"the resource, to the session, beyond it", session, nil, other, other, grant(`{'AWS':'` + session.ARN + `'}`), false, true, "because a resource-based policy allows the appmesh:X action"},
		{"another account, both", foreign, all, nil, nil, grant(`{'AWS':'arn:aws:iam::` + there + `:root'}`), false, true, "because an identity-based policy allows the appmesh:X action"},
		{"another account, its own side alone", foreign, all, nil, nil, nil, false, false, "because no resource-based policy allows the appmesh:X action"},
		{"another account, the resource alone", foreign, nil, nil, nil, grant(`'*'`), false, false, "because no identity-based policy allows the appmesh:X action"},
		{"another account, a boundary", foreign, all, other, nil, grant(`'*'`), false, false, "because no permissions boundary allows the appmesh:X action"},
		{"another account's root", Principal{ARN: "arn:aws:iam::" + there + ":root", Account: there, Root: true}, nil, nil, nil, nil, false, false, "because no resource-based policy allows the appmesh:X action"},
		{"the resource denies", alice, all, nil, nil, resource(`'Effect':'Deny','Principal':'*','Action':'*','Resource':'*'`), false, false, "with an explicit deny in a resource-based policy"},
		{"the resource denies root", root, nil, nil, nil, resource(`'Effect':'Deny','Principal':'*','Action':'*','Resource':'*'`), false, false, "with an explicit deny in a resource-based policy"},
		{"the resource denies others", alice, all, nil, nil, resource(`'Effect':'Deny','NotPrincipal':{'AWS':'` + alice.ARN + `'},'Action':'*','Resource':'*'`), false, true, "because an identity-based policy allows the appmesh:X action"},
		{"the account in NotPrincipal spares no user", alice, all, nil, nil, resource(`'Effect':'Deny','NotPrincipal':{'AWS':'` + here + `'},'Action':'*','Resource':'*'`), false, false, "with an explicit deny in a resource-based policy"},
		{"trust must allow", alice, all, nil, nil, nil, true, false, "because no resource-based policy allows the appmesh:X action"},
		{"trust in the account needs its own", alice, nil, nil, nil, grant(`{'AWS':'` + here + `'}`), true, false, "because no identity-based policy allows the appmesh:X action"},
		{"trust in the account, and its own", alice, all, nil, nil, grant(`{'AWS':'` + here + `'}`), true, true, "because an identity-based policy allows the appmesh:X action"},
		{"trust in the user", alice, nil, nil, nil, grant(`{'AWS':'` + alice.ARN + `'}`), true, true, "because a resource-based policy allows the appmesh:X action"},
		{"root is trusted too", root, nil, nil, nil, nil, true, false, "because no resource-based policy allows the appmesh:X action"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := Set{Boundary: test.boundary, Resource: test.their, MustAllow: test.must}
			if test.own != nil {
				set.Identity = []Attached{*test.own}
			}
			if test.session != nil {
				set.Session = []Attached{*test.session}
			}
			got := Evaluate(Request{Action: "appmesh:X", Resource: node, Principal: test.caller, ResourceAccount: here, Values: Values{}}, set)
			if got.Allowed != test.want || got.Because() != test.because {
				t.Errorf("got %+v, %s", got, got.Because())
			}
			if decided := got.Statement > 0; decided != (got.Explicit || got.Allowed && got.Layer != ByRoot) {
				t.Errorf("decided by %s", got.Decider())
			}
		})
	}
	got := Evaluate(Request{Action: "appmesh:X", Resource: node, Principal: alice, Values: Values{}}, Set{Identity: []Attached{*all, *deny}})
	if got.Decider() != "statement 1 (No) of own" {
		t.Errorf("decided by %s", got.Decider())
	}
}
