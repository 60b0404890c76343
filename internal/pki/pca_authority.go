package pki

import (
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// authority is a certificate authority as it is stored. Its private key is the
// secret at its place.
type authority struct {
	ID            string                                    `json:"id"`
	Account       string                                    `json:"account"`
	Type          acmpca.CertificateAuthorityType           `json:"type"`
	Configuration *acmpca.CertificateAuthorityConfiguration `json:"configuration"`
	KeyStorage    acmpca.KeyStorageSecurityStandard         `json:"keyStorage"`
	UsageMode     acmpca.CertificateAuthorityUsageMode      `json:"usageMode"`
	Revocation    *acmpca.RevocationConfiguration           `json:"revocation"`
	Tags          map[string]string                         `json:"tags,omitzero"`
	Permissions   []acmpca.Permission                       `json:"permissions,omitzero"`
	Policy        string                                    `json:"policy,omitzero"`
	// Adopted says that its ARN was another's before. Whoever owns this server
	// manages it, whatever account the ARN names.
	Adopted bool `json:"adopted,omitzero"`
	// Mesh is the mesh that this is the own authority of, as store.MeshKey.
	Mesh string `json:"mesh,omitzero"`

	Status    acmpca.CertificateAuthorityStatus `json:"status"` // never EXPIRED: see statusAt
	CreatedAt time.Time                         `json:"createdAt"`
	ChangedAt time.Time                         `json:"changedAt"` // of the status

	// While it is deleted.
	Before          acmpca.CertificateAuthorityStatus `json:"before,omitzero"`
	RestorableUntil time.Time                         `json:"restorableUntil,omitzero"`

	// CSR is kept: another one of the same key would have another signature,
	// and look to clients like another authority's.
	CSR         []byte    `json:"csr,omitzero"`         // PEM
	Certificate []byte    `json:"certificate,omitzero"` // DER
	Chain       [][]byte  `json:"chain,omitzero"`       // DER, root last
	Parents     []string  `json:"parents,omitzero"`     // ARNs of authorities here that have signed its certificates
	Serial      string    `json:"serial,omitzero"`      // of Certificate, as it is shown
	NotBefore   time.Time `json:"notBefore,omitzero"`
	NotAfter    time.Time `json:"notAfter,omitzero"`
	// Certified is when a rotation above has had Certificate issued; what was issued
	// before is with its holders under an older chain.
	Certified time.Time `json:"certified,omitzero"`

	// Generation is the number of the key that issues, from 0 on. Others are the
	// further ones of a root.
	Generation int          `json:"generation,omitzero"`
	Others     []generation `json:"others,omitzero"`

	// staged are the keys, PKCS #8, that a transaction moves: it would not read them
	// where they are to be.
	staged map[int][]byte
}

// statusAt is the status as it is reported: an authority whose certificate has
// ended is EXPIRED, whatever it was, except while it is deleted.
func (a *authority) statusAt(now time.Time) acmpca.CertificateAuthorityStatus {
	if (a.Status == acmpca.CertificateAuthorityStatusActive || a.Status == acmpca.CertificateAuthorityStatusDisabled) && now.After(a.NotAfter) {
		return acmpca.CertificateAuthorityStatusExpired
	}
	return a.Status
}

// goneAt says whether nobody can restore a deleted authority any more.
func (a *authority) goneAt(now time.Time) bool {
	return a.Status == acmpca.CertificateAuthorityStatusDeleted && !now.Before(a.RestorableUntil)
}

// keyless says that only the authority's certificate is known.
func (a *authority) keyless() bool { return a.Certificate != nil && a.CSR == nil }

// shift gives the authority another status.
func (a *authority) shift(to acmpca.CertificateAuthorityStatus, now time.Time) {
	if a.Status != to {
		a.Status, a.ChangedAt = to, now
	}
}

// deed is what can be done with an authority.
type deed string

// The deeds.
const (
	doIssue       deed = "issue certificates"
	doRevoke      deed = "revoke certificates"
	doPublish     deed = "publish CRLs, OCSP answers or audit reports"
	doImport      deed = "import its certificate"
	doUpdate      deed = "be updated"
	doDelete      deed = "be deleted"
	doRestore     deed = "be restored"
	doShowCSR     deed = "show its CSR"
	doShowOwn     deed = "show its certificate"
	doShow        deed = "show certificates"
	doShare       deed = "change permissions or policy"
	doShowSharing deed = "show permissions, policy or tags"
	doTag         deed = "be tagged"
)

// The statuses, for the table below.
const (
	creating = acmpca.CertificateAuthorityStatusCreating
	pending  = acmpca.CertificateAuthorityStatusPendingCertificate
	active   = acmpca.CertificateAuthorityStatusActive
	disabled = acmpca.CertificateAuthorityStatusDisabled
	expired  = acmpca.CertificateAuthorityStatusExpired
	failed   = acmpca.CertificateAuthorityStatusFailed
	deleted  = acmpca.CertificateAuthorityStatusDeleted
)

// deeds says in which states an authority lets what be done (facts B.2). The
// messages are AWS's where clients look for them.
var deeds = map[deed]struct {
	states  []acmpca.CertificateAuthorityStatus
	message string // ARN goes in for %s; empty: one is made of the row
}{
	// A root that is PENDING_CERTIFICATE also signs itself.
	doIssue:       {[]acmpca.CertificateAuthorityStatus{active}, "The certificate authority is not in a valid state for issuing certificates"},
	doRevoke:      {states: []acmpca.CertificateAuthorityStatus{active, disabled}},
	doPublish:     {states: []acmpca.CertificateAuthorityStatus{active, disabled}},
	doImport:      {states: []acmpca.CertificateAuthorityStatus{pending, active, expired}},
	doUpdate:      {[]acmpca.CertificateAuthorityStatus{active, disabled}, "The certificate authority must be in the ACTIVE or DISABLED state to be updated"},
	doDelete:      {states: []acmpca.CertificateAuthorityStatus{creating, pending, disabled, expired, failed}},
	doRestore:     {states: []acmpca.CertificateAuthorityStatus{deleted}},
	doShowCSR:     {states: []acmpca.CertificateAuthorityStatus{pending, active, disabled, expired}},
	doShowOwn:     {[]acmpca.CertificateAuthorityStatus{active, disabled, expired}, "The certificate authority %s is not in the correct state to have a certificate signing request."},
	doShow:        {states: []acmpca.CertificateAuthorityStatus{pending, active, disabled, expired}},
	doShare:       {states: []acmpca.CertificateAuthorityStatus{creating, pending, active, disabled, expired}},
	doShowSharing: {states: []acmpca.CertificateAuthorityStatus{creating, pending, active, disabled, expired, failed}},
	doTag:         {states: []acmpca.CertificateAuthorityStatus{creating, pending, active, disabled, expired}},
}

// keyDeeds need the authority's key, or the CSR that is made with it.
var keyDeeds = []deed{doIssue, doRevoke, doPublish, doImport, doShowCSR}

// needsKey refuses a deed that an authority cannot do of which only the
// certificate is known.
func (p *PrivateCA) needsKey(a *authority, do deed) error {
	arn := p.arn(a.Account, a.ID)
	return acmpca.NewInvalidStateException("The certificate authority %s cannot %s: this server has its certificate and not its private key. If you have the key give it with fairlead ca adopt --arn %[1]s --cert FILE --key FILE", arn, do)
}

// can refuses a deed that the authority's state does not allow.
func (p *PrivateCA) can(a *authority, do deed, now time.Time) error {
	rule, status := deeds[do], a.statusAt(now)
	if a.keyless() && slices.Contains(keyDeeds, do) {
		return p.needsKey(a, do)
	}
	if slices.Contains(rule.states, status) {
		return nil
	}
	arn := p.arn(a.Account, a.ID)
	if do == doShowCSR && status == creating {
		return acmpca.NewRequestInProgressException("The key of certificate authority %s is still being made. Try again later.", arn)
	}
	message := strings.ReplaceAll(rule.message, "%s", arn)
	if message == "" {
		message = "The certificate authority " + arn + " cannot " + string(do)
	}
	names := make([]string, len(rule.states))
	for i, s := range rule.states {
		names[i] = string(s)
	}
	return acmpca.NewInvalidStateException("%s: its status is %s, and must be %s", message, status, strings.Join(names, " or "))
}

// get reads an authority; one that can no longer be restored is not there.
func (p *PrivateCA) get(tx *store.Tx, at store.Place) (*store.Object[authority], error) {
	o, err := store.GetObject[authority](tx, at)
	if err == nil && o.Value.goneAt(p.Now()) {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, p.missing(err, at)
	}
	return o, nil
}

// missing says that an authority is not there, if that is what is wrong.
func (p *PrivateCA) missing(err error, at store.Place) error {
	if isNotFound(err) {
		return acmpca.NewResourceNotFoundException("The certificate authority %s does not exist", p.arn(at[1], at[2]))
	}
	return err
}

// change reads an authority that allows a deed, lets fn change it, and writes it.
func (p *PrivateCA) change(tx *store.Tx, at store.Place, do deed, fn func(a *authority, now time.Time) error) error {
	o, err := p.get(tx, at)
	if err != nil {
		return err
	}
	now := p.Now()
	if err := p.can(o.Value, do, now); err != nil {
		return err
	}
	if err := fn(o.Value, now); err != nil {
		return err
	}
	return p.put(tx, at, o.Value)
}

// describe is the authority as the API shows it.
func (p *PrivateCA) describe(a *authority, now time.Time) *acmpca.CertificateAuthority {
	arn, status := p.arn(a.Account, a.ID), a.statusAt(now)
	out := &acmpca.CertificateAuthority{
		Arn: &arn, OwnerAccount: &a.Account, Type: &a.Type, Status: &status,
		CertificateAuthorityConfiguration: a.Configuration, RevocationConfiguration: a.Revocation,
		KeyStorageSecurityStandard: &a.KeyStorage, UsageMode: &a.UsageMode,
		CreatedAt: api.Timestamp{Time: a.CreatedAt}, LastStateChangeAt: api.Timestamp{Time: a.ChangedAt},
	}
	if status == expired {
		out.LastStateChangeAt = api.Timestamp{Time: a.NotAfter}
	}
	if a.Serial != "" {
		out.Serial, out.NotBefore, out.NotAfter = &a.Serial, api.Timestamp{Time: a.NotBefore}, api.Timestamp{Time: a.NotAfter}
	}
	if status == deleted {
		out.RestorableUntil = api.Timestamp{Time: a.RestorableUntil}
	}
	if status == failed {
		reason := acmpca.FailureReasonOther
		out.FailureReason = &reason
	}
	return out
}

// pemText is certificates as Private CA returns them: no newline at the end.
func pemText(ders ...[]byte) *string {
	var b strings.Builder
	for _, der := range ders {
		b.Write(ca.EncodePEM(der))
	}
	text := strings.TrimSuffix(b.String(), "\n")
	return &text
}
