package envoy

import "testing"

// TestExpressions has what Envoy 1.40 was seen to take and to refuse with
// --mode validate.
func TestExpressions(t *testing.T) {
	for expr, want := range map[string]bool{
		`/v[0-9]+/.*`:             true,
		`/\pL+\p{Lu}\P{^Greek}`:   true,
		`/\p{Kawi}\p{Any}`:        true,
		`/é[à-ü]\xFF\x{FF}`:       true,
		`/\Q\p{Letter}\E\\x{100}`: true,
		`/(?P<a>x)(?<b>y)(?i:z)`:  true,
		`/a{2,1}`:                 false,
		`/\C`:                     false,
		`/\p{Letter}+`:            false,
		`/\p{greek}`:              false,
		`/\p{Cn}`:                 false,
		`/\P{LC}`:                 false,
		`/\x{100}`:                false,
		`/[^\x00-\x{10FFFF}]`:     false,
		`/\Qa\E\p{Letter}`:        false,
	} {
		if err := CheckExpression(expr); (err == nil) != want {
			t.Errorf("%s: %v, want it taken: %t", expr, err, want)
		}
	}
}
