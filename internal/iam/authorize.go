package iam

import (
	"fmt"
	"maps"

	"github.com/fairlead/fairlead/internal/iam/policy"
)

// Call is something that a principal wants to do.
type Call struct {
	Action   string        // "appmesh:CreateMesh"
	Resource string        // an ARN, or "*" if the action is on none
	Account  string        // that the resource belongs to
	Values   policy.Values // condition keys of the request; those of the principal come to it
}

// assumeRole is the one action whose resource is an entity, with a policy.
const assumeRole = "sts:AssumeRole"

// Authorize is the one place that says whether a principal may do something. It
// returns nil or a Refusal with ErrDenied, in AWS's words.
func Authorize(keys Keys, p Principal, c Call) error {
	d, err := Decide(keys, p, c)
	if err != nil {
		return Refuse(ErrDenied, "User: %s is not authorized to perform: %s on resource: %s because %v", p.ARN(), c.Action, clip(c.Resource), err)
	}
	if !d.Allowed {
		return Refuse(ErrDenied, "User: %s is not authorized to perform: %s on resource: %s %s", p.ARN(), c.Action, clip(c.Resource), d.Because())
	}
	return nil
}

// Decide is Authorize with the decision and the statement that made it. An error
// says why nothing can be decided, which is a denial.
func Decide(keys Keys, p Principal, c Call) (policy.Decision, error) {
	request := policy.Request{Action: c.Action, Resource: c.Resource, ResourceAccount: c.Account,
		Principal: policy.Principal{ARN: p.ARN(), Account: p.Account, Root: p.Kind == Root}, Values: p.values()}
	maps.Copy(request.Values, c.Values)
	set, err := policiesOf(keys, p)
	if err != nil {
		return policy.Decision{}, err
	}
	if p.Kind == RoleSession {
		request.Principal.Role = Ref{KindRole, p.Account, p.Name}.ARN()
	}
	if c.Action == assumeRole {
		set.MustAllow = true
		if ref, ok := RoleOf(c.Resource); ok {
			if role, err := keys.Entity(ref); err == nil {
				set.Resource = &role.read
			}
		}
	}
	return policy.Evaluate(request, set), nil
}

// policiesOf collects what is attached to a principal. If any of it is not there
// or cannot be read nothing is decided: it may have been what denies.
func policiesOf(keys Keys, p Principal) (set policy.Set, err error) {
	kind := map[Kind]EntityKind{User: KindUser, RoleSession: KindRole}[p.Kind]
	switch {
	case p.Kind == Root:
		return set, nil
	case kind == "":
		return set, fmt.Errorf("the key of a proxy opens the stream of its own resource and nothing else")
	}
	e, err := keys.Entity(Ref{kind, p.Account, p.Name})
	if err != nil {
		return set, fmt.Errorf("the %s is gone", kind)
	}
	attached := func(name string) (policy.Attached, error) {
		found, err := keys.Entity(Ref{KindPolicy, p.Account, name})
		if err != nil {
			return policy.Attached{}, fmt.Errorf("the policy %s that applies to it is gone or cannot be read", name)
		}
		return found.read, nil
	}
	names := e.Policies
	for _, group := range e.Groups {
		g, err := keys.Entity(Ref{KindGroup, p.Account, group})
		if err != nil {
			return set, fmt.Errorf("its group %s is gone", group)
		}
		names = append(names[:len(names):len(names)], g.Policies...)
	}
	for _, name := range names {
		a, err := attached(name)
		if err != nil {
			return set, err
		}
		set.Identity = append(set.Identity, a)
	}
	if e.Boundary != "" {
		a, err := attached(e.Boundary)
		if err != nil {
			return set, err
		}
		set.Boundary = &a
	}
	if p.Assumed != nil && p.Assumed.Policy != "" {
		document, err := policy.Parse([]byte(p.Assumed.Policy), policy.Identity)
		if err != nil {
			return set, fmt.Errorf("the session policy cannot be read: %w", err)
		}
		set.Session = []policy.Attached{{Name: "the session policy", Document: document}}
	}
	return set, nil
}

// values are the condition keys that a principal brings along.
func (p Principal) values() policy.Values {
	v := policy.Values{"aws:principalarn": {p.ARN()}, "aws:principalaccount": {p.Account}, "aws:principaltype": {"Account"}, "aws:userid": {p.UserID()}}
	switch p.Kind {
	case User:
		v["aws:principaltype"], v["aws:username"] = []string{"User"}, []string{p.Name}
	case RoleSession:
		v["aws:principaltype"], v["aws:principalarn"] = []string{"AssumedRole"}, []string{Ref{KindRole, p.Account, p.Name}.ARN()}
	}
	return v
}
