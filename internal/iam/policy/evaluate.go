package policy

import (
	"fmt"
	"strings"
)

// Layer is where a decision was made, in AWS's words.
type Layer string

// The layers.
const (
	ByIdentity Layer = "identity-based policy"
	ByBoundary Layer = "permissions boundary"
	BySession  Layer = "session policy"
	ByResource Layer = "resource-based policy"
	ByRoot     Layer = "root" // it needs no policy
)

// Decision is what policies come to.
type Decision struct {
	Allowed  bool
	Explicit bool  // denied by a statement, not for want of one
	Layer    Layer // of the statement; where one is missing
	// The statement that decided; of a request that nothing allows, none.
	Policy    string
	Statement int // from 1; 0: none
	SID       string
	action    string
}

// Because is the reason as AWS's messages have it.
func (d Decision) Because() string {
	article := "a "
	if d.Layer == ByIdentity {
		article = "an "
	}
	switch {
	case d.Allowed && d.Layer == ByRoot:
		return "because the root of the account needs no policy"
	case d.Allowed:
		return "because " + article + string(d.Layer) + " allows the " + d.action + " action"
	case d.Explicit:
		return "with an explicit deny in " + article + string(d.Layer)
	}
	return "because no " + string(d.Layer) + " allows the " + d.action + " action"
}

// Decider names the statement that decided, or says that there is none.
func (d Decision) Decider() string {
	switch {
	case d.Statement == 0:
		return "no statement"
	case d.SID != "":
		return fmt.Sprintf("statement %d (%s) of %s", d.Statement, d.SID, d.Policy)
	}
	return fmt.Sprintf("statement %d of %s", d.Statement, d.Policy)
}

// Evaluate decides a request. An explicit deny anywhere comes first. Then, in
// one account, the policy of the resource may let a principal in by itself, else
// its own policies must; between accounts both must. Boundaries and session
// policies only take away.
func Evaluate(r Request, set Set) Decision {
	for _, layer := range set.layers() {
		if d, found := r.find(layer.name, layer.policies, true); found {
			return d
		}
	}
	own, limit := r.own(set)
	byResource, reach := r.byResource(set)
	switch {
	case reach == notGranted && (set.MustAllow || own.Allowed && r.crosses()):
		return byResource
	case own.Allowed && own.Layer == ByRoot && reach != notGranted:
		return byResource
	case own.Allowed || r.crosses() || reach < toRole:
		return own
	case reach == toRole && limit != nil:
		return *limit
	}
	return byResource
}

type layer struct {
	name     Layer
	policies []Attached
}

func (set Set) layers() []layer {
	all := []layer{{ByIdentity, set.Identity}, {BySession, set.Session}}
	if set.Boundary != nil {
		all = append(all, layer{ByBoundary, []Attached{*set.Boundary}})
	}
	if set.Resource != nil {
		all = append(all, layer{ByResource, []Attached{*set.Resource}})
	}
	return all
}

func (r Request) crosses() bool {
	return r.ResourceAccount != "" && r.ResourceAccount != r.Principal.Account
}

// own is what the principal's own side comes to; limit is the boundary or
// session policy that allows too little, if one does.
func (r Request) own(set Set) (decision Decision, limit *Decision) {
	decision, found := r.find(ByIdentity, set.Identity, false)
	if r.Principal.Root {
		decision, found = Decision{Allowed: true, Layer: ByRoot, action: r.Action}, true
	}
	for _, layer := range set.layers()[1:] {
		if layer.name == ByResource || layer.name == BySession && len(set.Session) == 0 {
			continue
		}
		if d, allows := r.find(layer.name, layer.policies, false); !allows && limit == nil {
			limit = &d
		}
	}
	if found && limit != nil {
		return *limit, limit
	}
	return decision, limit
}

// byResource is what the policy of the resource comes to, and how far it lets
// the principal in.
func (r Request) byResource(set Set) (Decision, granted) {
	best, reach := Decision{Layer: ByResource, action: r.Action}, notGranted
	if set.Resource == nil {
		return best, reach
	}
	for i := range set.Resource.Document.Statements {
		s := &set.Resource.Document.Statements[i]
		if s.Deny || !s.applies(r) {
			continue
		}
		if named := s.names(r.Principal); named > reach {
			best, reach = r.decided(ByResource, *set.Resource, i), named
		}
	}
	return best, reach
}

// find is the first statement of some policies that applies and has an effect;
// without one it is the implicit denial.
func (r Request) find(name Layer, policies []Attached, deny bool) (Decision, bool) {
	for _, attached := range policies {
		for i := range attached.Document.Statements {
			s := &attached.Document.Statements[i]
			if s.Deny == deny && s.applies(r) && (name != ByResource || s.concerns(r.Principal)) {
				return r.decided(name, attached, i), true
			}
		}
	}
	return Decision{Layer: name, action: r.Action}, false
}

func (r Request) decided(name Layer, by Attached, i int) Decision {
	s := by.Document.Statements[i]
	return Decision{Allowed: !s.Deny, Explicit: s.Deny, Layer: name, Policy: by.Name, Statement: i + 1, SID: s.SID, action: r.Action}
}

// applies says whether a statement is about a request, whoever makes it.
func (s *Statement) applies(r Request) bool {
	return s.hasAction(r.Action) && s.hasResource(r) && s.conditionsHold(r.Values)
}

func (s *Statement) hasAction(action string) bool {
	action = strings.ToLower(action)
	for _, p := range s.actions {
		if glob(p.parts, action) {
			return !s.notAction
		}
	}
	return s.notAction
}

func (s *Statement) hasResource(r Request) bool {
	if len(s.resources) == 0 {
		return true
	}
	unknown := false
	for _, t := range s.resources {
		matched, known := t.any, true
		if !t.any {
			matched, known = t.arn.match(r.Resource, r.Values)
		}
		if matched {
			return !s.notResource
		}
		unknown = unknown || !known
	}
	return s.notResource && (s.Deny || !unknown)
}

func (s *Statement) conditionsHold(values Values) bool {
	for _, c := range s.conditions {
		if !c.holds(values, s.Deny) {
			return false
		}
	}
	return true
}
