package ca

import (
	"crypto/x509/pkix"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// draft is a certificate as it was decided, before it is signed.
type draft struct {
	serial              Serial
	signing             signing
	issuer, subject     []byte // DER names
	notBefore, notAfter time.Time
	spki                []byte
	extensions          []pkix.Extension
	profile             profile
}

// profile is what the linter holds a draft against.
type profile struct {
	isCA    bool
	pathLen int // of a CA; negative: none
	root    bool
	own     bool // Fairlead's own leaf: stricter
}

// tbs is the part that is signed (RFC 5280 4.1.2). The draft's bytes go in as
// they are.
func (d *draft) tbs() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(d.serial.Int())
		d.signing.add(b)
		b.AddBytes(d.issuer)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, d.notBefore)
			addTime(b, d.notAfter)
		})
		b.AddBytes(d.subject)
		b.AddBytes(d.spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, e := range d.extensions {
					addExtension(b, e)
				}
			})
		})
	})
	return b.Bytes()
}

func addExtension(b *cryptobyte.Builder, e pkix.Extension) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(e.Id)
		if e.Critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(e.Value)
	})
}

// addTime is a UTCTime until 2049 (RFC 5280 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if year := t.Year(); year >= 1950 && year < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

// add is the algorithm's identifier: RSA has NULL parameters (RFC 4055), ECDSA
// none (RFC 5758).
func (s signing) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(s.oid)
		if s.family == "RSA" {
			b.AddASN1NULL()
		}
	})
}

// assemble puts a signature under what it signs.
func assemble(tbs []byte, s signing, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		s.add(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}
