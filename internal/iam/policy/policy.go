// Package policy is the IAM policy language: Parse reads a document strictly,
// Evaluate says what the policies that apply to a request come to, and which
// statement decided. It follows the public documentation of IAM's JSON policy
// elements and evaluation logic (facts/certificates.md D.4), knows no principals
// and no operations beyond their names, and takes everything that a decision
// depends on as an argument. What it does not understand it refuses to read.
package policy

// Use is what a document is for: whom it is attached to decides which elements
// it must and must not have.
type Use int

// The uses of documents.
const (
	Identity Use = iota // of a user, a group or a role; boundaries and session policies too: no Principal
	Resource            // of a resource: Principal and Resource
	Trust               // of a role: Principal, no Resource
)

// MaxBytes bounds a document, as AWS bounds a role's policies.
const MaxBytes = 10240

// Document is a policy that was read.
type Document struct {
	Version    string // 2012-10-17 or 2008-10-17, which knows no variables
	ID         string
	Statements []Statement
}

// Statement is one of a document's.
type Statement struct {
	SID  string
	Deny bool

	notAction, notResource, notPrincipal bool // the element is there as its negation

	actions    []pattern // in lower case
	resources  []target  // none: of a trust policy, which is about its role
	principals []principal
	conditions []condition
}

// target is a value of Resource.
type target struct {
	any bool
	arn arnPattern
}

// Values are the condition keys of a request, by name in lower case. A key
// without a value is an absent one.
type Values map[string][]string

// Request is what is to be decided. Action, Resource and Principal are matched;
// everything that conditions and variables look at is in Values.
type Request struct {
	Action    string // "appmesh:CreateMesh"
	Resource  string // an ARN, or "*" of an action that is on no resource
	Principal Principal
	// ResourceAccount owns the resource: if it is not the principal's account,
	// both sides must allow. Empty: the principal's own.
	ResourceAccount string
	Values          Values
}

// Principal is whoever makes a request.
type Principal struct {
	ARN     string // of a session: arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION
	Role    string // ARN of the role of a session, else empty
	Account string
	Root    bool // of its account: needs no policy of its own
}

// Attached is a document and what it is called in a decision.
type Attached struct {
	Name     string
	Document *Document
}

// Set is all that applies to a request.
type Set struct {
	Identity []Attached // of the principal and its groups
	Boundary *Attached  // nil: none
	Session  []Attached // what a session was narrowed to; none: it was not
	Resource *Attached  // nil: none
	// MustAllow: the resource's policy must allow whatever the account, as a
	// role's trust policy must.
	MustAllow bool
}
