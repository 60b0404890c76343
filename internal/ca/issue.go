package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"
)

// Request is everything that a certificate of a template follows from.
type Request struct {
	CSR         *CSR
	Template    Template
	Passthrough *Passthrough // heeded by the templates whose name says API
	Algorithm   SigningAlgorithm
	Validity    Validity
	NotBefore   *Validity // of type ABSOLUTE; nil: an hour before now
	ShortLived  bool      // the authority's usage mode: at most 7 days

	CRLURLs []string // distribution point; none if the authority has no CRL or omits the extension
	OCSPURL string   // empty if the authority has no OCSP

	Now    time.Time
	Serial Serial
}

// IssueCertificate makes the certificate of a request, DER.
func (a *Authority) IssueCertificate(r Request) ([]byte, error) {
	if r.Template.root {
		return nil, faultf(InvalidArgs, "template %s makes an authority's certificate for itself; for another's use a SubordinateCACertificate template", r.Template.Name)
	}
	if err := a.issuer.checkState(r.Now); err != nil {
		return nil, err
	}
	d, err := r.decide(&a.issuer)
	if err != nil {
		return nil, err
	}
	return d.sign(&a.issuer, a.key, a.throwaway)
}

// SelfSign makes a root authority's own certificate, the first or a renewed
// one, from its CSR and key, DER. The template must be a root's.
func SelfSign(key crypto.Signer, r Request) ([]byte, error) {
	if !r.Template.root {
		return nil, faultf(InvalidState, "an authority without a certificate signs only its own, with a RootCACertificate template, not %s", r.Template.Name)
	}
	if !samePublicKey(key.Public(), r.CSR.PublicKey()) {
		return nil, faultf(InvalidArgs, "template %s needs the authority's own CSR: this one is by another key", r.Template.Name)
	}
	throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the key for linting: %w", err)
	}
	self := issuer{public: key.Public(), below: -1}
	d, err := r.decide(&self)
	if err != nil {
		return nil, err
	}
	d.issuer, self.name = d.subject, d.subject
	return d.sign(&self, key, throwaway)
}

func (i *issuer) checkState(now time.Time) error {
	const invalid = "The certificate authority is not in a valid state for issuing certificates"
	if now.After(i.notAfter) {
		return faultf(InvalidState, invalid+": its certificate ended at %s", stamp(i.notAfter))
	}
	if now.Before(i.notBefore) {
		return faultf(InvalidState, invalid+": its certificate begins at %s", stamp(i.notBefore))
	}
	return nil
}

// decide makes the draft of a request, or says why there is none.
func (r *Request) decide(i *issuer) (*draft, error) {
	s, err := signingFor(r.Algorithm, i.public)
	if err != nil {
		return nil, err
	}
	notBefore, notAfter, err := r.period(i, r.Template.root)
	if err != nil {
		return nil, err
	}
	if t := r.Template; t.isCA && i.below >= 0 && i.below < t.pathLen+1 {
		return nil, faultf(InvalidArgs, "template %s makes an authority with %d more below it, but below this one the path length leaves room for %d in all", t.Name, t.pathLen, i.below)
	}
	subject, err := r.subject()
	if err != nil {
		return nil, err
	}
	extensions, err := r.extensions(i)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(subject, emptyName) {
		san := find(extensions, oidSAN)
		if san == nil {
			return nil, faultf(InvalidArgs, "neither a subject nor a subject alternative name is given: the CSR or a passthrough must have one")
		}
		if r.Template.isCA {
			return nil, faultf(InvalidArgs, "the certificate of an authority must have a subject")
		}
		san.Critical = true // RFC 5280 4.2.1.6
	}
	return &draft{
		serial: r.Serial, signing: s, issuer: i.name, subject: subject, notBefore: notBefore, notAfter: notAfter,
		spki: r.CSR.request.RawSubjectPublicKeyInfo, extensions: extensions,
		profile: profile{isCA: r.Template.isCA, pathLen: r.Template.pathLen, root: r.Template.root},
	}, nil
}

// subject is the API's if the template takes one from there and it is not
// empty, else the CSR's.
func (r *Request) subject() ([]byte, error) {
	if r.Template.fromAPI && r.Passthrough != nil && r.Passthrough.Subject != nil {
		subject, err := r.Passthrough.Subject.Encode()
		if err != nil || !bytes.Equal(subject, emptyName) {
			return subject, err
		}
	}
	return r.CSR.request.RawSubject, nil
}

// extensions are those of the template, then those of the API, then those of
// the CSR: what is there already is not taken again.
func (r *Request) extensions(i *issuer) ([]pkix.Extension, error) {
	all, err := r.Template.own(r, i)
	if err != nil {
		return nil, err
	}
	add := func(e pkix.Extension) {
		if find(all, e.Id) == nil {
			all = append(all, e)
		}
	}
	if r.Template.fromAPI && r.Passthrough != nil && r.Passthrough.Extensions != nil {
		asked, err := r.Passthrough.Extensions.encode()
		if err != nil {
			return nil, err
		}
		for _, e := range asked {
			add(e)
		}
	}
	for _, e := range r.CSR.request.Extensions {
		// The names of the CSR are every template's last resort.
		if r.Template.fromCSR || e.Id.Equal(oidSAN) {
			add(e)
		}
	}
	return all, nil
}

// own are the extensions that the template and the authority's configuration
// define.
func (t Template) own(r *Request, i *issuer) ([]pkix.Extension, error) {
	all := []pkix.Extension{basicConstraintsExtension(t.isCA, t.pathLen, t.criticalBC)}
	if !t.root {
		all = append(all, akiExtension(i.keyID))
	}
	bits, err := keyBits(r.CSR.request.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	all = append(all, skiExtension(parityKeyID(bits)))
	if t.keyUsage != 0 {
		all = append(all, keyUsageExtension(t.keyUsage))
	}
	if len(t.eku) > 0 {
		all = append(all, ekuExtension(t.eku, t.criticalEKU))
	}
	if len(r.CRLURLs) > 0 && !t.root {
		all = append(all, cdpExtension(r.CRLURLs))
	}
	if r.OCSPURL != "" && !t.root {
		all = append(all, aiaExtension(r.OCSPURL))
	}
	return all, nil
}

// sign lints the draft as a throw-away key signs it, signs it with the real key
// and verifies what came out, so that no signature of an authority is ever
// under anything but what was decided.
func (d *draft) sign(i *issuer, key crypto.Signer, throwaway *ecdsa.PrivateKey) ([]byte, error) {
	tbs, err := d.tbs()
	if err != nil {
		return nil, err
	}
	signature, err := signingAlgorithms[0].sign(throwaway, tbs)
	if err != nil {
		return nil, err
	}
	trial, err := assemble(tbs, d.signing, signature)
	if err != nil {
		return nil, err
	}
	if err := d.lint(trial, i); err != nil {
		return nil, err
	}
	if signature, err = d.signing.sign(key, tbs); err != nil {
		return nil, err
	}
	der, err := assemble(tbs, d.signing, signature)
	if err != nil {
		return nil, err
	}
	if err := d.verify(der, tbs, i.public); err != nil {
		return nil, err
	}
	return der, nil
}

// verify reads the certificate again: its signed part must be the one that was
// linted, bit for bit, and the signature the authority's.
func (d *draft) verify(der, tbs []byte, public crypto.PublicKey) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read the certificate %s just signed: %w", d.serial, err)
	}
	if !bytes.Equal(c.RawTBSCertificate, tbs) || c.SerialNumber.Cmp(d.serial.Int()) != 0 {
		return fmt.Errorf("the certificate %s just signed is not the one that was decided", d.serial)
	}
	authority := x509.Certificate{PublicKey: public}
	if err := authority.CheckSignature(d.signing.x509, c.RawTBSCertificate, c.Signature); err != nil {
		return fmt.Errorf("the signature of certificate %s just signed is wrong: %w", d.serial, err)
	}
	return nil
}
