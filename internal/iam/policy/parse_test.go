package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		use  Use
		text string
		want string
	}{
		{"empty", Identity, ``, "line 1, column 1: the policy is not JSON"},
		{"not an object", Identity, `[]`, "must be an object"},
		{"a version of tomorrow", Identity, `{"Version":"2030-01-01","Statement":[]}`, "line 1, column 24: /Version must be 2012-10-17 or 2008-10-17"},
		{"no statement", Identity, `{"Version":"2012-10-17"}`, "has no Statement"},
		{"no statements", Identity, `{"Statement":[]}`, "has no Statement"},
		{"an unknown element", Identity, `{"Statements":[]}`, "/Statements is not an element of a policy"},
		{"a member twice", Identity, `{"Statement":{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}}`, "names a member twice"},
		{"a member in another case", Identity, statement(`'effect':'Allow','Action':'*','Resource':'*'`), "is not an element of a statement"},
		{"two documents", Identity, statement(everything) + `{}`, "is followed by something else"},
		{"half a document after it", Identity, statement(everything) + `]`, "is not JSON"},
		{"no effect", Identity, statement(`'Action':'*','Resource':'*'`), "has no Effect"},
		{"an effect of another kind", Identity, statement(`'Effect':'allow','Action':'*','Resource':'*'`), "must be Allow or Deny"},
		{"no action", Identity, statement(`'Effect':'Allow','Resource':'*'`), "has neither Action nor NotAction"},
		{"no actions", Identity, statement(`'Effect':'Allow','Action':[],'Resource':'*'`), "must have a value"},
		{"both actions", Identity, statement(`'Effect':'Allow','Action':'*','NotAction':'*','Resource':'*'`), "has both Action and NotAction"},
		{"an action without service", Identity, statement(`'Effect':'Allow','Action':'CreateMesh','Resource':'*'`), "is not an action"},
		{"a service with wildcards", Identity, statement(`'Effect':'Allow','Action':'ac*:List','Resource':'*'`), "is not an action"},
		{"a number as an action", Identity, statement(`'Effect':'Allow','Action':1,'Resource':'*'`), "/Statement/Action must be a string"},
		{"no resource", Identity, statement(`'Effect':'Allow','Action':'*'`), "has neither Resource nor NotResource"},
		{"a resource that is no ARN", Identity, statement(`'Effect':'Allow','Action':'*','Resource':'mesh/*'`), "is neither an ARN nor *"},
		{"an ARN that skips fields", Identity, statement(`'Effect':'Allow','Action':'*','Resource':'arn:*:mesh/shop'`), "has no service as its third part"},
		{"half a variable", Identity, statement(`'Effect':'Allow','Action':'*','Resource':'arn:aws:x:::${aws:username'`), "a variable is"},
		{"a variable without prefix", Identity, statement(`'Effect':'Allow','Action':'*','Resource':'arn:aws:x:::${username}'`), "a variable is"},
		{"a principal", Identity, statement(`'Effect':'Allow','Action':'*','Resource':'*','Principal':'*'`), "it is whoever the policy is attached to"},
		{"a resource of a trust policy", Trust, statement(`'Effect':'Allow','Action':'*','Resource':'*','Principal':'*'`), "it is the role that the policy is of"},
		{"no principal", Resource, statement(everything), "has neither Principal nor NotPrincipal"},
		{"a principal in words", Resource, statement(everything + `,'Principal':'alice'`), `must be "*"`},
		{"a principal of another kind", Resource, statement(everything + `,'Principal':{'Service':'x.amazonaws.com'}`), "is not a kind of principal"},
		{"nobody", Resource, statement(everything + `,'Principal':{}`), "names nobody"},
		{"a pattern of principals", Resource, statement(everything + `,'Principal':{'AWS':'arn:aws:iam::` + here + `:user/*'}`), "without wildcards"},
		{"a group", Resource, statement(everything + `,'Principal':{'AWS':'arn:aws:iam::` + here + `:group/g'}`), "is not the ARN of a user"},
		{"allow everybody but", Resource, statement(everything + `,'NotPrincipal':{'AWS':'` + here + `'}`), "NotPrincipal with Allow"},
		{"not everybody", Resource, statement(`'Effect':'Deny','Action':'*','Resource':'*','NotPrincipal':'*'`), "a wildcard is not for NotPrincipal"},
		{"an unknown operator", Identity, statement(everything + `,'Condition':{'StringMatches':{'a:b':'c'}}`), "/Statement/Condition/StringMatches is not a condition operator"},
		{"half an operator", Identity, statement(everything + `,'Condition':{'Numeric':{'a:b':'c'}}`), "is not a condition operator"},
		{"an unknown quantifier", Identity, statement(everything + `,'Condition':{'ForSomeValues:StringEquals':{'a:b':'c'}}`), "is not a condition operator"},
		{"a quantified Null", Identity, statement(everything + `,'Condition':{'ForAnyValue:Null':{'a:b':'true'}}`), "Null takes no quantifier"},
		{"NullIfExists", Identity, statement(everything + `,'Condition':{'NullIfExists':{'a:b':'true'}}`), "is not a condition operator"},
		{"a key without prefix", Identity, statement(everything + `,'Condition':{'StringEquals':{'b':'c'}}`), "is not a condition key"},
		{"a key twice", Identity, statement(everything + `,'Condition':{'StringEquals':{'a:b':'c','A:B':'d'}}`), "there twice"},
		{"no values", Identity, statement(everything + `,'Condition':{'StringEquals':{'a:b':[]}}`), "must have a value"},
		{"null", Identity, statement(everything + `,'Condition':{'StringEquals':{'a:b':null}}`), "must be a string, a number or a boolean"},
		{"no number", Identity, statement(everything + `,'Condition':{'NumericEquals':{'a:b':'1e9'}}`), "is not a number"},
		{"no date", Identity, statement(everything + `,'Condition':{'DateEquals':{'a:b':'soon'}}`), "is not a date"},
		{"no boolean", Identity, statement(everything + `,'Condition':{'Bool':{'a:b':'1'}}`), "is neither true nor false"},
		{"no network", Identity, statement(everything + `,'Condition':{'IpAddress':{'a:b':'10.0.0.0/33'}}`), "is not an IP address"},
		{"no base64", Identity, statement(everything + `,'Condition':{'BinaryEquals':{'a:b':'QUJ'}}`), "is not base64"},
		{"a Sid with a space", Identity, statement(`'Sid':'a b',` + everything), "letters and digits"},
		{"a Sid twice", Identity, `{"Statement":[{"Sid":"A","Effect":"Deny","Action":"*","Resource":"*"},` + "\n" + `{"Sid":"A","Effect":"Deny","Action":"*","Resource":"*"}]}`, "line 2, column"},
		{"too long", Identity, statement(everything) + strings.Repeat(" ", MaxBytes), "at most 10240"},
		{"deep", Identity, strings.Repeat("[", 5000), "must be an object"},
		{"not UTF-8", Identity, "{\"Id\":\"\xff\"}", "is not JSON"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := Parse([]byte(test.text), test.use)
			if _, ok := errors.AsType[*Fault](err); !ok || d != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s\ngot  %v\nwant %s", test.text, err, test.want)
			}
		})
	}
}

// FuzzParse: no text makes Parse or Evaluate panic or take long, a refusal has a
// place in the text, and what is read in one order means the same in another.
func FuzzParse(f *testing.F) {
	f.Add([]byte(statement(everything)), "appmesh:CreateMesh", node)
	f.Add([]byte(statement(`'Effect':'Deny','NotAction':['a:*?*'],'NotResource':'arn:aws:x:*::${aws:username, ’u’}*','Condition':{'ForAnyValue:StringLikeIfExists':{'aws:TagKeys':['*a*b*']}}`)), "a:b", "*")
	f.Add([]byte(`{"Statement":[{"Principal":{"AWS":["`+here+`","*"]},"Effect":"Allow","Action":"sts:AssumeRole"}]}`), "sts:AssumeRole", "*")
	f.Fuzz(func(t *testing.T, text []byte, action, resource string) {
		for _, use := range []Use{Identity, Resource, Trust} {
			d, err := Parse(text, use)
			if fault, refused := errors.AsType[*Fault](err); refused != (d == nil) || refused && (fault.Line < 1 || fault.Column < 1 || fault.Line > len(text)+1) {
				t.Fatalf("got %v, %v", d, err)
			}
			if err != nil {
				continue
			}
			attached := Attached{"p", d}
			set := Set{Identity: []Attached{attached}}
			if use != Identity {
				set = Set{Resource: &attached, MustAllow: use == Trust}
			}
			got := Evaluate(Request{Action: action, Resource: resource, Principal: alice, Values: requestValues()}, set)
			if got.Allowed && got.Statement == 0 || got.Allowed && got.Explicit {
				t.Fatalf("allowed by nothing: %+v", got)
			}
			if len(set.Identity) > 0 && got.Allowed {
				set.Boundary = &attached
				if again := Evaluate(Request{Action: action, Resource: resource, Principal: alice, Values: requestValues()}, set); !again.Allowed {
					t.Fatalf("as its own boundary it takes away: %+v", again)
				}
			}
		}
	})
}
