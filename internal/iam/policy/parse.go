package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Fault is a mistake in a document.
type Fault struct {
	Line, Column int    // from 1; a column is a byte
	Pointer      string // JSON pointer of what is wrong; "" is the document
	Message      string
}

func (f *Fault) Error() string {
	at := f.Pointer
	if at == "" {
		at = "the policy"
	}
	return fmt.Sprintf("line %d, column %d: %s %s", f.Line, f.Column, at, f.Message)
}

// reader reads a document token by token. All its errors are *Fault.
type reader struct {
	text []byte
	dec  *jsontext.Decoder
	use  Use
	doc  *Document
}

// Parse reads a document. Its errors are *Fault.
func Parse(text []byte, use Use) (*Document, error) {
	r := &reader{text: text, dec: jsontext.NewDecoder(bytes.NewReader(text)), use: use, doc: &Document{Version: "2008-10-17"}}
	if len(text) > MaxBytes {
		return nil, r.fault("has %d bytes; at most %d are allowed", len(text), MaxBytes)
	}
	if err := r.document(); err != nil {
		return nil, err
	}
	if _, err := r.dec.ReadToken(); err == nil {
		return nil, r.fault("is followed by something else")
	} else if r.dec.InputOffset() < int64(len(bytes.TrimRight(text, " \t\r\n"))) {
		return nil, r.broken(err)
	}
	return r.doc, nil
}

func (r *reader) fault(format string, args ...any) error {
	before := r.text[:min(r.dec.InputOffset(), int64(len(r.text)))]
	line := bytes.Count(before, []byte("\n")) + 1
	return &Fault{Line: line, Column: len(before) - bytes.LastIndexByte(before, '\n'), Pointer: string(r.dec.StackPointer()), Message: fmt.Sprintf(format, args...)}
}

// broken reports what is no JSON, or names a member twice.
func (r *reader) broken(err error) error {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(syntactic.Err, jsontext.ErrDuplicateName) {
			return r.fault("names a member twice")
		}
		return r.fault("is not JSON: %v", syntactic.Err)
	}
	return r.fault("is not JSON: %v", err)
}

// object reads an object, calling member at the value of each.
func (r *reader) object(member func(name string) error) error {
	if r.dec.PeekKind() != '{' {
		return r.wrong("an object")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.broken(err)
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.dec.ReadToken()
		if err != nil {
			return r.broken(err)
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.broken(err)
	}
	return nil
}

// wrong refuses a value of another kind than wanted.
func (r *reader) wrong(want string) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return r.broken(err)
	}
	return r.fault("must be %s", want)
}

// list reads one value or a list of them.
func (r *reader) list(each func() error) error {
	if r.dec.PeekKind() != '[' {
		return each()
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.broken(err)
	}
	for r.dec.PeekKind() != ']' {
		if err := each(); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.broken(err)
	}
	return nil
}

func (r *reader) string() (string, error) {
	if r.dec.PeekKind() != '"' {
		return "", r.wrong("a string")
	}
	token, err := r.dec.ReadToken()
	if err != nil {
		return "", r.broken(err)
	}
	return token.String(), nil
}

// strings reads a string or a list of at least one, giving each to keep.
func (r *reader) strings(keep func(string) error) error {
	n := 0
	err := r.list(func() error {
		n++
		text, err := r.string()
		if err != nil {
			return err
		}
		if err := keep(text); err != nil {
			return r.fault("is wrong: %v", err)
		}
		return nil
	})
	if err == nil && n == 0 {
		return r.fault("must have a value")
	}
	return err
}

func (r *reader) document() error {
	// Whether variables are variables hangs on the version, wherever it stands.
	if err := r.version(); err != nil {
		return err
	}
	seen := false
	err := r.object(func(name string) error {
		var err error
		switch name {
		case "Version":
			_, err = r.string()
		case "Id":
			r.doc.ID, err = r.string()
		case "Statement":
			seen = true
			err = r.list(r.statement)
		default:
			err = r.fault("is not an element of a policy; Version, Id and Statement are")
		}
		return err
	})
	if err == nil && (!seen || len(r.doc.Statements) == 0) {
		return r.fault("has no Statement")
	}
	return err
}

// version looks ahead for the version, in a decoder of its own.
func (r *reader) version() error {
	ahead := &reader{text: r.text, dec: jsontext.NewDecoder(bytes.NewReader(r.text))}
	return ahead.object(func(name string) error {
		if name != "Version" {
			if err := ahead.dec.SkipValue(); err != nil {
				return ahead.broken(err)
			}
			return nil
		}
		text, err := ahead.string()
		if err != nil {
			return err
		}
		if text != "2012-10-17" && text != "2008-10-17" {
			return ahead.fault("must be 2012-10-17 or 2008-10-17")
		}
		r.doc.Version = text
		return nil
	})
}

func (r *reader) statement() error {
	var s Statement
	given := map[string]bool{}
	err := r.object(func(name string) error {
		given[name] = true
		return r.element(&s, name)
	})
	if err != nil {
		return err
	}
	for _, want := range []struct {
		name string
		must bool
		may  bool
	}{
		{"Action", true, true},
		{"Resource", r.use != Trust, r.use != Trust},
		{"Principal", r.use != Identity, r.use != Identity},
	} {
		one, other := given[want.name], given["Not"+want.name]
		switch {
		case one && other:
			return r.fault("has both %s and Not%s", want.name, want.name)
		case want.must && !one && !other:
			return r.fault("has neither %s nor Not%s", want.name, want.name)
		case !want.may && (one || other):
			return r.fault("must not have %s: %s", want.name, map[Use]string{Identity: "it is whoever the policy is attached to", Trust: "it is the role that the policy is of"}[r.use])
		}
	}
	if !given["Effect"] {
		return r.fault("has no Effect")
	}
	if given["NotPrincipal"] && !s.Deny {
		return r.fault("has NotPrincipal with Allow, which would allow everybody else in the world; it is for Deny")
	}
	if s.SID != "" && slices.ContainsFunc(r.doc.Statements, func(o Statement) bool { return o.SID == s.SID }) {
		return r.fault("has the Sid %q of another statement", s.SID)
	}
	r.doc.Statements = append(r.doc.Statements, s)
	return nil
}

func (r *reader) element(s *Statement, name string) (err error) {
	switch name {
	case "Sid":
		s.SID, err = r.string()
		if err == nil && (strings.Trim(strings.ToLower(s.SID), "abcdefghijklmnopqrstuvwxyz0123456789") != "" || s.SID == "") {
			return r.fault("must have letters and digits alone")
		}
	case "Effect":
		effect, err := r.string()
		if err == nil && effect != "Allow" && effect != "Deny" {
			return r.fault("must be Allow or Deny")
		}
		s.Deny = effect == "Deny"
		return err
	case "Action", "NotAction":
		s.notAction = name == "NotAction"
		return r.strings(s.addAction)
	case "Resource", "NotResource":
		s.notResource = name == "NotResource"
		return r.strings(func(text string) error { return s.addResource(text, r.variables()) })
	case "Principal", "NotPrincipal":
		s.notPrincipal = name == "NotPrincipal"
		return r.principals(s)
	case "Condition":
		return r.conditions(s)
	default:
		return r.fault("is not an element of a statement")
	}
	return err
}

func (r *reader) variables() bool { return r.doc.Version == "2012-10-17" }

func (s *Statement) addAction(text string) error {
	service, name, ok := strings.Cut(text, ":")
	vendor := strings.Trim(strings.ToLower(service), "abcdefghijklmnopqrstuvwxyz0123456789-") == "" || service == "*" && name == "*"
	if text != "*" && (!ok || service == "" || name == "" || !vendor || strings.Contains(name, ":")) {
		return fmt.Errorf("%q is not an action: it is service:Operation, with * and ? in the operation, or *", text)
	}
	p, err := compile(strings.ToLower(text), true, false)
	s.actions = append(s.actions, p)
	return err
}

func (s *Statement) addResource(text string, variables bool) error {
	if text == "*" {
		s.resources = append(s.resources, target{any: true})
		return nil
	}
	arn, err := compileARN(text, variables)
	s.resources = append(s.resources, target{arn: arn})
	return err
}
