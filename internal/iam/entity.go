package iam

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/iam/policy"
)

// EntityKind is what sort of entity one is.
type EntityKind string

// The kinds of entities.
const (
	KindAccount EntityKind = "account" // beside the server's own; its name is its 12 digits
	KindUser    EntityKind = "user"
	KindGroup   EntityKind = "group"
	KindRole    EntityKind = "role"
	KindPolicy  EntityKind = "policy"
)

// EntityKinds are all of them, in the order in which they can be made.
func EntityKinds() []EntityKind {
	return []EntityKind{KindAccount, KindPolicy, KindGroup, KindUser, KindRole}
}

// Ref names an entity.
type Ref struct {
	Kind    EntityKind
	Account string
	Name    string
}

// ARN names the entity as policies do.
func (r Ref) ARN() string {
	if r.Kind == KindAccount {
		return "arn:aws:iam::" + r.Name + ":root"
	}
	return "arn:aws:iam::" + r.Account + ":" + string(r.Kind) + "/" + r.Name
}

// UserKey is an access key of a user, without its secret.
type UserKey struct {
	ID        string    `json:"id"`
	Disabled  bool      `json:"disabled,omitzero"`
	CreatedAt time.Time `json:"createdAt"`
}

// MaxUserKeys is how many access keys a user has at most, so that one can be
// changed for another.
const MaxUserKeys = 2

// Entity is an account, user, group, role or policy. Check must have been called
// before it decides anything.
type Entity struct {
	Ref        `json:",inline"`
	ID         string    `json:"id"` // never used again for another
	CreatedAt  time.Time `json:"createdAt"`
	Document   string    `json:"document,omitzero"`   // of a policy
	Trust      string    `json:"trust,omitzero"`      // of a role: who may assume it
	MaxSession int64     `json:"maxSession,omitzero"` // of a role, in seconds
	Policies   []string  `json:"policies,omitzero"`   // attached: names of policies of the account
	Boundary   string    `json:"boundary,omitzero"`   // of a user or role: the name of a policy
	Groups     []string  `json:"groups,omitzero"`     // of a user
	Keys       []UserKey `json:"keys,omitzero"`       // of a user

	read policy.Attached // the document or the trust policy
}

// Bounds of entities, AWS's where it has some.
const (
	maxName     = 64
	maxAttached = 20
	maxGroups   = 10
	// LeastSession and MostSession bound a role's session, in seconds.
	LeastSession = 900
	MostSession  = 43200
)

// Check reads an entity's document and says whether all of it makes sense. The
// error is for whoever made it.
func (e *Entity) Check() error {
	if !isAccount(e.Account) {
		return fmt.Errorf("account: %q does not have 12 digits", clip(e.Account))
	}
	if e.Kind == KindAccount && !isAccount(e.Name) {
		return fmt.Errorf("name: the account %q does not have 12 digits", clip(e.Name))
	}
	if !IsEntityName(e.Name) {
		return fmt.Errorf("name: %q is not 1 to 64 letters, digits and +=,.@_-", clip(e.Name))
	}
	if !slices.Contains(EntityKinds(), e.Kind) {
		return fmt.Errorf("kind: %q is none", clip(string(e.Kind)))
	}
	for _, member := range []struct {
		name  string
		given bool
		kinds []EntityKind
	}{
		{"document", e.Document != "", []EntityKind{KindPolicy}},
		{"trust", e.Trust != "", []EntityKind{KindRole}},
		{"maxSession", e.MaxSession != 0, []EntityKind{KindRole}},
		{"policies", len(e.Policies) > 0, []EntityKind{KindUser, KindGroup, KindRole}},
		{"boundary", e.Boundary != "", []EntityKind{KindUser, KindRole}},
		{"groups", len(e.Groups) > 0, []EntityKind{KindUser}},
		{"keys", len(e.Keys) > 0, []EntityKind{KindUser}},
	} {
		if member.given && !slices.Contains(member.kinds, e.Kind) {
			return fmt.Errorf("%s: a %s has none", member.name, e.Kind)
		}
	}
	switch {
	case len(e.Policies) > maxAttached:
		return fmt.Errorf("policies: at most %d can be attached", maxAttached)
	case len(e.Groups) > maxGroups:
		return fmt.Errorf("groups: a user is in %d at most", maxGroups)
	case len(e.Keys) > MaxUserKeys:
		return fmt.Errorf("keys: a user has at most %d", MaxUserKeys)
	case e.Kind == KindRole && (e.MaxSession < LeastSession || e.MaxSession > MostSession):
		return fmt.Errorf("maxSession: %d is not from %d to %d seconds", e.MaxSession, LeastSession, MostSession)
	}
	return e.readDocument()
}

func (e *Entity) readDocument() error {
	text, use, member := e.Document, policy.Identity, "document"
	switch e.Kind {
	case KindRole:
		text, use, member = e.Trust, policy.Trust, "trust"
	case KindPolicy:
	default:
		return nil
	}
	document, err := policy.Parse([]byte(text), use)
	if err != nil {
		return fmt.Errorf("%s: %w", member, err)
	}
	e.read = policy.Attached{Name: e.ARN(), Document: document}
	return nil
}

// IsEntityName says whether a text can be the name of an entity, or of a
// session.
func IsEntityName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789+=,.@_-") == ""
}

// HasKey says whether an access key is one of a user's, and not disabled.
func (e *Entity) HasKey(id string) bool {
	return slices.ContainsFunc(e.Keys, func(k UserKey) bool { return k.ID == id && !k.Disabled })
}

// Uses are the names of what an entity refers to, by kind.
func (e *Entity) Uses() map[EntityKind][]string {
	uses := map[EntityKind][]string{KindPolicy: slices.Clone(e.Policies), KindGroup: e.Groups}
	if e.Boundary != "" {
		uses[KindPolicy] = append(uses[KindPolicy], e.Boundary)
	}
	maps.DeleteFunc(uses, func(_ EntityKind, names []string) bool { return len(names) == 0 })
	return uses
}
