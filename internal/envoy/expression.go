package envoy

import (
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
)

// CheckExpression finds what keeps Envoy from taking a regular expression. Envoy
// and Go read the same language, RE2's, but for two things (tried on 1.40):
// Envoy's matches bytes, so that no character beyond \xFF has a number, and it
// knows Unicode's classes by their short names alone (\p{Lu}, \p{Greek}).
func CheckExpression(expr string) error {
	if _, err := syntax.Parse(expr, syntax.Perl); err != nil {
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	for rest := expr; ; {
		_, escaped, found := strings.Cut(rest, `\`)
		if !found || escaped == "" {
			return nil
		}
		var err error
		if rest, err = checkEscape(escaped); err != nil {
			return err
		}
	}
}

// checkEscape looks at what follows a backslash and returns what follows that.
func checkEscape(text string) (rest string, err error) {
	kind, rest := text[0], text[1:]
	argument := ""
	if braced, ok := strings.CutPrefix(rest, "{"); ok && strings.IndexByte("pPx", kind) >= 0 {
		argument, rest, _ = strings.Cut(braced, "}")
	}
	switch {
	case kind == 'Q': // literal until \E
		_, rest, _ = strings.Cut(rest, `\E`)
	case kind == 'x' && argument != "":
		if n, err := strconv.ParseUint(argument, 16, 32); err != nil || n > 0xff {
			return "", fmt.Errorf(`\x{%s} is beyond \xFF: write the character itself`, argument)
		}
	case (kind == 'p' || kind == 'P') && argument != "":
		if name := strings.TrimPrefix(argument, "^"); !isClass(name) {
			return "", fmt.Errorf(`\%c{%s} is no class that Envoy knows: Unicode's categories have short names (\p{Lu}), scripts their own (\p{Greek})`, kind, argument)
		}
	}
	return rest, nil
}

// isClass says whether Envoy knows a Unicode class.
func isClass(name string) bool {
	_, category := unicode.Categories[name]
	_, script := unicode.Scripts[name]
	return name == "Any" || script || category && name != "Cn" && name != "LC"
}
