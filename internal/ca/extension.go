package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of extensions (RFC 5280 4.2).
var (
	oidSKI              = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidIAN              = asn1.ObjectIdentifier{2, 5, 29, 18}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidIDP              = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCDP              = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidPolicies         = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidPolicyMappings   = asn1.ObjectIdentifier{2, 5, 29, 33}
	oidAKI              = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidEKU              = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSDA              = asn1.ObjectIdentifier{2, 5, 29, 9}
	oidInhibitAnyPolicy = asn1.ObjectIdentifier{2, 5, 29, 54}
	oidAIA              = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidSIA              = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 11}
)

// oidEmailAddress is an attribute of names (PKCS #9).
var oidEmailAddress = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// Passthrough is what an API passthrough template takes from the request
// (ApiPassthrough). Nil members are absent.
type Passthrough struct {
	Subject    *Subject
	Extensions *Extensions
}

// Extensions are those that a request may ask for.
type Extensions struct {
	Policies []Policy
	EKU      []ExtendedKeyUsage
	KeyUsage x509.KeyUsage // zero: absent
	SANs     []GeneralName
	Custom   []CustomExtension
}

// Policy is a certificate policy with the URIs of its practice statements.
type Policy struct {
	OID     string
	CPSURIs []string
}

// ExtendedKeyUsage is a usage by Private CA's name or by object identifier; one
// of the two is set.
type ExtendedKeyUsage struct {
	Type string // SERVER_AUTH, …
	OID  string
}

// CustomExtension is any extension, its value DER in base64.
type CustomExtension struct {
	OID      string
	Critical bool
	Value    string
}

// AccessDescription is an entry of SubjectInformationAccess. One of Method
// (CA_REPOSITORY, …) and OID is set.
type AccessDescription struct {
	Method   string
	OID      string
	Location GeneralName
}

var ekuOIDs = map[string]string{
	"SERVER_AUTH":              "1.3.6.1.5.5.7.3.1",
	"CLIENT_AUTH":              "1.3.6.1.5.5.7.3.2",
	"CODE_SIGNING":             "1.3.6.1.5.5.7.3.3",
	"EMAIL_PROTECTION":         "1.3.6.1.5.5.7.3.4",
	"TIME_STAMPING":            "1.3.6.1.5.5.7.3.8",
	"OCSP_SIGNING":             "1.3.6.1.5.5.7.3.9",
	"DOCUMENT_SIGNING":         "1.3.6.1.5.5.7.3.36",
	"SMART_CARD_LOGIN":         "1.3.6.1.4.1.311.20.2.2",
	"CERTIFICATE_TRANSPARENCY": "1.3.6.1.4.1.11129.2.4.4",
}

var accessMethods = map[string]string{
	"CA_REPOSITORY":         "1.3.6.1.5.5.7.48.5",
	"RESOURCE_PKI_MANIFEST": "1.3.6.1.5.5.7.48.10",
	"RESOURCE_PKI_NOTIFY":   "1.3.6.1.5.5.7.48.13",
}

// encode makes the extensions of a request, in a fixed order: key usage,
// extended key usage, policies, names, custom ones as given.
func (e *Extensions) encode() ([]pkix.Extension, error) {
	var all []pkix.Extension
	if e.KeyUsage != 0 {
		all = append(all, keyUsageExtension(e.KeyUsage))
	}
	if len(e.EKU) > 0 {
		extension, err := requestedEKU(e.EKU)
		if err != nil {
			return nil, err
		}
		all = append(all, extension)
	}
	if len(e.Policies) > 0 {
		extension, err := policiesExtension(e.Policies)
		if err != nil {
			return nil, err
		}
		all = append(all, extension)
	}
	if len(e.SANs) > 0 {
		value, err := encodeGeneralNames(e.SANs)
		if err != nil {
			return nil, err
		}
		all = append(all, pkix.Extension{Id: oidSAN, Value: value})
	}
	if len(e.Custom) > maxListed {
		return nil, faultf(InvalidArgs, "%d CustomExtensions; at most %d", len(e.Custom), maxListed)
	}
	for _, c := range e.Custom {
		extension, err := c.encode()
		if err != nil {
			return nil, err
		}
		all = append(all, extension)
	}
	if id := duplicate(all); id != nil {
		return nil, faultf(InvalidArgs, "extension %s is asked for twice", id)
	}
	return all, nil
}

func (c CustomExtension) encode() (pkix.Extension, error) {
	oid, err := parseOID(c.OID)
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := base64.StdEncoding.DecodeString(c.Value)
	if err != nil || len(c.Value) > 4096 {
		return pkix.Extension{}, faultf(InvalidArgs, "the value of custom extension %s must be base64 of at most 4096 characters", c.OID)
	}
	var element cryptobyte.String
	rest := cryptobyte.String(value)
	if !rest.ReadAnyASN1Element(&element, nil) || !rest.Empty() {
		return pkix.Extension{}, faultf(InvalidArgs, "the value of custom extension %s must be one DER element", c.OID)
	}
	return pkix.Extension{Id: oid, Critical: c.Critical, Value: value}, nil
}

func requestedEKU(usages []ExtendedKeyUsage) (pkix.Extension, error) {
	if len(usages) > 20 {
		return pkix.Extension{}, faultf(InvalidArgs, "%d extended key usages; at most 20", len(usages))
	}
	var oids []string
	for _, u := range usages {
		oid := u.OID
		if (u.Type == "") == (u.OID == "") {
			return pkix.Extension{}, faultf(InvalidArgs, "an extended key usage must have either ExtendedKeyUsageType or ExtendedKeyUsageObjectIdentifier")
		}
		if u.Type != "" {
			oid = ekuOIDs[u.Type]
		}
		if _, err := parseOID(oid); err != nil {
			return pkix.Extension{}, faultf(InvalidArgs, "extended key usage %q is not known", u.Type+u.OID)
		}
		oids = append(oids, oid)
	}
	return ekuExtension(oids, false), nil
}

// must is for values that this package made itself: their encoding fails only
// by a mistake here, and then the lint finds no valid extension.
func must(b *cryptobyte.Builder) []byte {
	value, err := b.Bytes()
	if err != nil {
		return nil
	}
	return value
}

// ekuExtension takes object identifiers that were parsed before or are ours.
func ekuExtension(oids []string, critical bool) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, text := range oids {
			oid, err := parseOID(text)
			if err != nil {
				b.SetError(err)
				return
			}
			b.AddASN1ObjectIdentifier(oid)
		}
	})
	return pkix.Extension{Id: oidEKU, Critical: critical, Value: must(&b)}
}

// keyUsageExtension is always critical (RFC 5280 4.2.1.3: should be). Its bit
// string ends with its last set bit.
func keyUsageExtension(usage x509.KeyUsage) pkix.Extension {
	low, high := bits.Reverse8(uint8(usage)), byte(usage>>8)<<7
	value := []byte{low}
	if high != 0 {
		value = append(value, high)
	}
	unused := bits.TrailingZeros8(value[len(value)-1])
	der := append([]byte{byte(cbasn1.BIT_STRING), byte(len(value) + 1), byte(unused)}, value...)
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: der}
}

// basicConstraintsExtension has no path length if that is negative.
func basicConstraintsExtension(isCA bool, pathLen int, critical bool) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if isCA {
			b.AddASN1Boolean(true)
			if pathLen >= 0 {
				b.AddASN1Int64(int64(pathLen))
			}
		}
	})
	return pkix.Extension{Id: oidBasicConstraints, Critical: critical, Value: must(&b)}
}

func skiExtension(id []byte) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1OctetString(id)
	return pkix.Extension{Id: oidSKI, Value: must(&b)}
}

func akiExtension(id []byte) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(id) })
	})
	return pkix.Extension{Id: oidAKI, Value: must(&b)}
}

// cdpExtension is one distribution point that is found at each of the URLs.
func cdpExtension(urls []string) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPointName(b, urls) })
	})
	return pkix.Extension{Id: oidCDP, Value: must(&b)}
}

func addDistributionPointName(b *cryptobyte.Builder, urls []string) {
	constructed := cbasn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(constructed, func(b *cryptobyte.Builder) {
		b.AddASN1(constructed, func(b *cryptobyte.Builder) {
			for _, url := range urls {
				b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
			}
		})
	})
}

// aiaExtension names the OCSP responder.
func aiaExtension(url string) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1})
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
		})
	})
	return pkix.Extension{Id: oidAIA, Value: must(&b)}
}

func policiesExtension(policies []Policy) (pkix.Extension, error) {
	if len(policies) > 20 {
		return pkix.Extension{}, faultf(InvalidArgs, "%d certificate policies; at most 20", len(policies))
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, p := range policies {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { p.add(b) })
		}
	})
	value, err := b.Bytes()
	return pkix.Extension{Id: oidPolicies, Value: value}, err
}

func (p Policy) add(b *cryptobyte.Builder) {
	oid, err := parseOID(p.OID)
	if err != nil {
		b.SetError(err)
		return
	}
	b.AddASN1ObjectIdentifier(oid)
	if len(p.CPSURIs) == 0 {
		return
	}
	if len(p.CPSURIs) > 20 {
		b.SetError(faultf(InvalidArgs, "certificate policy %s has %d qualifiers; at most 20", p.OID, len(p.CPSURIs)))
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, uri := range p.CPSURIs {
			if !isIA5(uri, 256) {
				b.SetError(faultf(InvalidArgs, "certificate policy %s: the CPS URI must be 1 to 256 printable ASCII characters", p.OID))
				return
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 1})
				b.AddASN1(cbasn1.IA5String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			})
		}
	})
}

func siaExtension(descriptions []AccessDescription) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, d := range descriptions {
			text := d.OID
			if d.Method != "" {
				text = accessMethods[d.Method]
			}
			oid, err := parseOID(text)
			if err != nil || (d.Method == "") == (d.OID == "") {
				b.SetError(faultf(InvalidArgs, "access method %q of SubjectInformationAccess is not known: it must have either AccessMethodType or CustomObjectIdentifier", d.Method+d.OID))
				return
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid)
				d.Location.add(b)
			})
		}
	})
	value, err := b.Bytes()
	return pkix.Extension{Id: oidSIA, Value: value}, err
}

// duplicate is the first object identifier that stands twice, or nil.
func duplicate(extensions []pkix.Extension) asn1.ObjectIdentifier {
	for i, e := range extensions {
		if find(extensions[:i], e.Id) != nil {
			return e.Id
		}
	}
	return nil
}

func find(extensions []pkix.Extension, oid asn1.ObjectIdentifier) *pkix.Extension {
	for i := range extensions {
		if extensions[i].Id.Equal(oid) {
			return &extensions[i]
		}
	}
	return nil
}
