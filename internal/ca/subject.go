package ca

import (
	"encoding/asn1"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Subject is a distinguished name as Private CA's API has it (ASN1Subject).
// Custom attributes stand alone or not at all.
type Subject struct {
	Country                    string
	Organization               string
	OrganizationalUnit         string
	DistinguishedNameQualifier string
	State                      string
	CommonName                 string
	SerialNumber               string
	Locality                   string
	Title                      string
	Surname                    string
	GivenName                  string
	Initials                   string
	Pseudonym                  string
	GenerationQualifier        string
	Custom                     []Attribute
}

// Attribute is a custom attribute of a Subject.
type Attribute struct {
	OID   string
	Value string // 1 to 256 characters
}

// subjectAttributes are in the order in which they stand in a certificate.
var subjectAttributes = []struct {
	name  string
	short string
	oid   string
	max   int
	of    func(*Subject) string
}{
	{"Country", "C", "2.5.4.6", 2, func(s *Subject) string { return s.Country }},
	{"Organization", "O", "2.5.4.10", 64, func(s *Subject) string { return s.Organization }},
	{"OrganizationalUnit", "OU", "2.5.4.11", 64, func(s *Subject) string { return s.OrganizationalUnit }},
	{"DistinguishedNameQualifier", "dnQualifier", "2.5.4.46", 64, func(s *Subject) string { return s.DistinguishedNameQualifier }},
	{"State", "ST", "2.5.4.8", 128, func(s *Subject) string { return s.State }},
	{"CommonName", "CN", "2.5.4.3", 64, func(s *Subject) string { return s.CommonName }},
	{"SerialNumber", "serialNumber", "2.5.4.5", 64, func(s *Subject) string { return s.SerialNumber }},
	{"Locality", "L", "2.5.4.7", 128, func(s *Subject) string { return s.Locality }},
	{"Title", "title", "2.5.4.12", 64, func(s *Subject) string { return s.Title }},
	{"Surname", "SN", "2.5.4.4", 40, func(s *Subject) string { return s.Surname }},
	{"GivenName", "GN", "2.5.4.42", 16, func(s *Subject) string { return s.GivenName }},
	{"Initials", "initials", "2.5.4.43", 5, func(s *Subject) string { return s.Initials }},
	{"Pseudonym", "pseudonym", "2.5.4.65", 128, func(s *Subject) string { return s.Pseudonym }},
	{"GenerationQualifier", "generationQualifier", "2.5.4.44", 3, func(s *Subject) string { return s.GenerationQualifier }},
}

// Encode is the name in DER, each attribute an RDN of its own. The subject may
// be empty.
func (s *Subject) Encode() ([]byte, error) {
	attributes, err := s.attributes()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range attributes {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.oid)
					b.AddASN1(stringTag(a.oid.String(), a.value), func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
				})
			})
		}
	})
	return b.Bytes()
}

type attribute struct {
	oid   asn1.ObjectIdentifier
	value string
}

func (s *Subject) attributes() ([]attribute, error) {
	var all []attribute
	add := func(name, oid, value string, most int) error {
		id, err := parseOID(oid)
		if err != nil {
			return err
		}
		if !utf8.ValidString(value) || strings.ContainsFunc(value, isControl) {
			return faultf(InvalidArgs, "subject %s must be text without control characters", name)
		}
		if n := utf8.RuneCountInString(value); n == 0 || n > most {
			return faultf(InvalidArgs, "subject %s has %d characters; it may have 1 to %d", name, n, most)
		}
		if mustBePrintable[oid] && !printable.MatchString(value) {
			return faultf(InvalidArgs, "subject %s has characters that a PrintableString cannot hold", name)
		}
		all = append(all, attribute{id, value})
		return nil
	}
	for _, a := range subjectAttributes {
		if value := a.of(s); value != "" {
			if err := add(a.name, a.oid, value, a.max); err != nil {
				return nil, err
			}
		}
	}
	if s.Country != "" && !country.MatchString(s.Country) {
		return nil, faultf(InvalidArgs, "subject Country %q must be two letters", s.Country)
	}
	if len(all) > 0 && len(s.Custom) > 0 {
		return nil, faultf(InvalidArgs, "subject CustomAttributes cannot be mixed with standard attributes; put these among the custom ones by their object identifiers")
	}
	if len(s.Custom) > maxListed {
		return nil, faultf(InvalidArgs, "subject has %d CustomAttributes; at most %d", len(s.Custom), maxListed)
	}
	for _, c := range s.Custom {
		if err := add("attribute "+c.OID, c.OID, c.Value, 256); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// maxListed bounds the lists of the API: attributes, names, custom extensions.
const maxListed = 150

var (
	country   = regexp.MustCompile(`^[A-Za-z]{2}$`)
	printable = regexp.MustCompile(`^[A-Za-z0-9 '()+,\-./:=?]*$`)
	oidText   = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9})){1,20}$`)
)

// mustBePrintable are the attributes whose syntax is PrintableString (X.520).
var mustBePrintable = map[string]bool{"2.5.4.6": true, "2.5.4.46": true, "2.5.4.5": true}

// stringTag is the ASN.1 string type of an attribute's value: IA5String where
// RFC 5280 A.1 and RFC 4519 2.4 want it, else PrintableString if that suffices.
func stringTag(oid, value string) cbasn1.Tag {
	switch {
	case oid == "0.9.2342.19200300.100.1.25" || oid == "1.2.840.113549.1.9.1": // domainComponent, emailAddress
		return cbasn1.IA5String
	case printable.MatchString(value):
		return cbasn1.PrintableString
	}
	return cbasn1.UTF8String
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// parseOID reads a dotted object identifier. An arc has at most 31 bits: no
// parser of certificates in Go takes more.
func parseOID(text string) (asn1.ObjectIdentifier, error) {
	if len(text) > 64 || !oidText.MatchString(text) {
		return nil, faultf(InvalidArgs, "object identifier %.64q is not of the form 1.2.840.113549", text)
	}
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		arc, err := strconv.ParseInt(part, 10, 32)
		if err != nil {
			return nil, faultf(InvalidArgs, "object identifier %q: the arc %s is larger than 2147483647", text, part)
		}
		oid = append(oid, int(arc))
	}
	if oid[0] < 2 && oid[1] >= 40 {
		return nil, faultf(InvalidArgs, "object identifier %q: the second arc must be below 40", text)
	}
	return oid, nil
}
