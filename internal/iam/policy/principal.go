package policy

import (
	"fmt"
	"strings"
)

// principal is a value of Principal.
type principal struct {
	everybody bool
	account   string // all of an account, as far as its own policies allow
	arn       string // a user, a role or a session
}

// granted is how far the policy of a resource lets a principal in.
type granted int

const (
	notGranted granted = iota
	// toAccount: an administrator of the account may hand it on; by itself it
	// gives nobody of that account anything.
	toAccount
	// toRole: all sessions of the role, or everybody, as far as boundary and
	// session allow.
	toRole
	// toCaller: the caller itself.
	toCaller
)

func (r *reader) principals(s *Statement) error {
	if r.dec.PeekKind() == '"' {
		text, err := r.string()
		if err != nil {
			return err
		}
		if text != "*" {
			return r.fault(`must be "*" or an object with AWS`)
		}
		return r.everybody(s)
	}
	err := r.object(func(kind string) error {
		if kind != "AWS" {
			return r.fault("is not a kind of principal that this server knows; AWS is")
		}
		return r.strings(func(text string) error {
			if text == "*" {
				return r.everybody(s)
			}
			return s.addPrincipal(text)
		})
	})
	if err == nil && len(s.principals) == 0 {
		return r.fault("names nobody")
	}
	return err
}

func (r *reader) everybody(s *Statement) error {
	if s.notPrincipal {
		return r.fault("would be nobody: a wildcard is not for NotPrincipal")
	}
	s.principals = append(s.principals, principal{everybody: true})
	return nil
}

func (s *Statement) addPrincipal(text string) error {
	if isAccount(text) {
		s.principals = append(s.principals, principal{account: text})
		return nil
	}
	fields := strings.SplitN(text, ":", arnFields)
	if len(fields) != arnFields || fields[0] != "arn" || fields[3] != "" || !isAccount(fields[4]) || strings.ContainsAny(text, "*?${}") {
		return fmt.Errorf("%q is not a principal: it is an account, or the ARN of one user, role or session, without wildcards", text)
	}
	kind, name, _ := strings.Cut(fields[5], "/")
	switch {
	case fields[2] == "iam" && fields[5] == "root":
		s.principals = append(s.principals, principal{account: fields[4]})
		return nil
	case fields[2] == "iam" && (kind == "user" || kind == "role") && name != "":
	case fields[2] == "sts" && kind == "assumed-role" && strings.Count(name, "/") == 1:
	default:
		return fmt.Errorf("%q is not the ARN of a user, a role or the session of a role", text)
	}
	s.principals = append(s.principals, principal{arn: text})
	return nil
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// names says how far the Principal of a statement that allows reaches a caller.
func (s *Statement) names(caller Principal) granted {
	reach := notGranted
	for _, p := range s.principals {
		switch {
		case p.arn != "" && p.arn == caller.ARN, p.account == caller.Account && caller.Root:
			reach = toCaller
		case p.arn != "" && p.arn == caller.Role, p.everybody:
			reach = max(reach, toRole)
		case p.account == caller.Account:
			reach = max(reach, toAccount)
		}
	}
	return reach
}

// concerns says whether a statement that denies is about a caller. NotPrincipal
// spares only whom it names: an account in it spares that account's root alone.
func (s *Statement) concerns(caller Principal) bool {
	if !s.notPrincipal {
		return s.names(caller) != notGranted
	}
	return s.names(caller) != toCaller
}
