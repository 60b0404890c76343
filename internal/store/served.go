package store

import (
	"time"

	"github.com/go-json-experiment/json"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What proxies are served of certificates and authorities lies in records of its
// own, at an ARN each. Whoever changes a certificate, an authority or what is
// revoked writes them in the same transaction. The cache watches them.
const (
	kindServedCertificate = "served-certificate" // its secret is the key, PKCS #8
	kindServedAuthority   = "served-authority"
	kindServedList        = "served-list"
)

// Certificate is what specs and proxies need to know of a certificate of ACM.
type Certificate struct {
	ARN     string `json:"arn"`
	Type    string `json:"type"`             // ACM's CertificateType
	Status  string `json:"status"`           // ACM's CertificateStatus, but never EXPIRED: see NotAfter
	Failure string `json:"failure,omitzero"` // ACM's FailureReason

	Chain  string   `json:"chain,omitzero"` // PEM, as in mesh.Certificate; empty before it is issued
	Roots  string   `json:"roots,omitzero"` // PEM; empty: the chain does not lead to a root
	Root   string   `json:"root,omitzero"`  // ARN
	Names  []string `json:"names,omitzero"`
	Serial string   `json:"serial,omitzero"`

	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`

	// Issuers are the ARNs of the authorities in the chain with its root, those that
	// are known here. NoCRLs says why there are no CRLs for the chain even so: an
	// authority in it that is not.
	Issuers []string `json:"issuers,omitzero"`
	NoCRLs  string   `json:"noCRLs,omitzero"`
}

// Authority is what specs and proxies need to know of a certificate authority.
type Authority struct {
	ARN      string    `json:"arn"`
	Account  string    `json:"account"`
	Root     bool      `json:"root,omitzero"`
	Status   string    `json:"status"` // Private CA's, but never EXPIRED: see NotAfter
	NotAfter time.Time `json:"notAfter,omitzero"`
	// Roots is PEM: of a root its own certificate. Empty before there is one.
	Roots string `json:"roots,omitzero"`
	// Parents are the ARNs of the authorities that have signed its certificates.
	Parents []string `json:"parents,omitzero"`
	// Readers are the accounts that its resource policy lets read it.
	Readers []string `json:"readers,omitzero"`
	// Mesh is the mesh that this is the own authority of, as OWNER/NAME. A mesh may
	// have several, one after the other.
	Mesh string `json:"mesh,omitzero"`
	// Gone: it was removed, and nothing of it is left but this.
	Gone bool `json:"gone,omitzero"`
}

// RevocationList is the CRL of an authority that proxies get.
type RevocationList struct {
	CRL        string    `json:"crl,omitzero"` // PEM
	NextUpdate time.Time `json:"nextUpdate,omitzero"`
	// Missing says why there is no CRL, if there is none.
	Missing string `json:"missing,omitzero"`
	// Others are the authorities below this one that are not known here, by the
	// serial of the certificate that they got from it, with its end. Nobody
	// here has their CRLs, so that there are none for the whole tree.
	Others map[string]time.Time `json:"others,omitzero"`
}

// GetCertificate reads what is served of a certificate, and makes that it stays
// so a condition. If there is none the error is ErrNotFound, which becomes the
// condition.
func GetCertificate(tx *Tx, arn string) (*Certificate, error) {
	return served[Certificate](tx, Place{kindServedCertificate, arn})
}

// GetAuthority is GetCertificate of an authority. One that is gone is not found.
func GetAuthority(tx *Tx, arn string) (*Authority, error) {
	a, err := served[Authority](tx, Place{kindServedAuthority, arn})
	if err == nil && a.Gone {
		return nil, ErrNotFound
	}
	return a, err
}

// GetRevocationList is GetCertificate of an authority's CRL.
func GetRevocationList(tx *Tx, arn string) (*RevocationList, error) {
	return served[RevocationList](tx, Place{kindServedList, arn})
}

func served[T any](tx *Tx, at Place) (*T, error) {
	o, err := GetObject[T](tx, at)
	if err != nil {
		return nil, err
	}
	return o.Value, nil
}

// PutCertificate stages what is served of a certificate, and its key if it has
// changed; nil leaves it as it is. It reads nothing and is no condition: what it
// was made from is the caller's, and must be one.
func PutCertificate(tx *Tx, c *Certificate, key []byte) error {
	at := Place{kindServedCertificate, c.ARN}
	if err := putServed(tx, at, c); err != nil || key == nil {
		return err
	}
	path, err := at.path()
	if err != nil {
		return err
	}
	return tx.putSealed(dirSecret+path, purposeObject, key)
}

// DeleteCertificate stages the end of what is served of a certificate. Nothing may
// use it: see Users.
func DeleteCertificate(tx *Tx, arn string) error {
	path, err := Place{kindServedCertificate, arn}.path()
	if err != nil {
		return err
	}
	for _, key := range []string{dirObject + path, dirSecret + path} {
		tx.ops[key] = clientv3.OpDelete(key)
	}
	return nil
}

// PutAuthority is PutCertificate of an authority. One that is removed is put as
// gone, and loses its CRL: that it was is the newest revision of views that had it.
func PutAuthority(tx *Tx, a *Authority) error {
	if a.Gone {
		if err := deleteServed(tx, Place{kindServedList, a.ARN}); err != nil {
			return err
		}
	}
	return putServed(tx, Place{kindServedAuthority, a.ARN}, a)
}

// DeleteAuthority stages the end of an authority that never had a certificate, so
// that no view had it.
func DeleteAuthority(tx *Tx, arn string) error {
	return deleteServed(tx, Place{kindServedAuthority, arn})
}

func deleteServed(tx *Tx, at Place) error {
	path, err := at.path()
	if err != nil {
		return err
	}
	tx.ops[dirObject+path] = clientv3.OpDelete(dirObject + path)
	return nil
}

// PutRevocationList stages the CRL of an authority. The transaction must have
// read it.
func PutRevocationList(tx *Tx, arn string, l *RevocationList) error {
	return PutObject(tx, Place{kindServedList, arn}, l)
}

func putServed[T any](tx *Tx, at Place, value *T) error {
	path, err := at.path()
	if err != nil {
		return err
	}
	text, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return err
	}
	tx.ops[dirObject+path] = clientv3.OpPut(dirObject+path, string(text))
	return nil
}
