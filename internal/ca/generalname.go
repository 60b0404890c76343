package ca

import (
	"net/netip"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// GeneralName is a name of one of eight kinds (RFC 5280 4.2.1.6 without the
// X.400 address, as Private CA's API has it). Exactly one member is set.
type GeneralName struct {
	OtherName     *OtherName
	Email         string // Rfc822Name
	DNS           string
	DirectoryName *Subject
	EDIParty      *EDIPartyName
	URI           string
	IP            string // textual, IPv4 or IPv6
	RegisteredID  string // dotted object identifier
}

// OtherName is a name of a kind that an object identifier says, its value text.
type OtherName struct {
	TypeID string
	Value  string
}

// EDIPartyName is a party in electronic data interchange.
type EDIPartyName struct {
	NameAssigner string // optional
	PartyName    string
}

// The tags of GeneralName's choices.
var (
	tagOtherName     = cbasn1.Tag(0).ContextSpecific().Constructed()
	tagEmail         = cbasn1.Tag(1).ContextSpecific()
	tagDNS           = cbasn1.Tag(2).ContextSpecific()
	tagDirectoryName = cbasn1.Tag(4).ContextSpecific().Constructed()
	tagEDIParty      = cbasn1.Tag(5).ContextSpecific().Constructed()
	tagURI           = cbasn1.Tag(6).ContextSpecific()
	tagIP            = cbasn1.Tag(7).ContextSpecific()
	tagRegisteredID  = cbasn1.Tag(8).ContextSpecific()
)

func encodeGeneralNames(names []GeneralName) ([]byte, error) {
	if len(names) > maxListed {
		return nil, faultf(InvalidArgs, "%d subject alternative names; at most %d", len(names), maxListed)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range names {
			n.add(b)
		}
	})
	return b.Bytes()
}

func (n GeneralName) add(b *cryptobyte.Builder) {
	if n.members() != 1 {
		b.SetError(faultf(InvalidArgs, "a general name must have exactly one member; this one has %d", n.members()))
		return
	}
	switch {
	case n.Email != "":
		addIA5(b, tagEmail, "Rfc822Name", n.Email, 256)
	case n.DNS != "":
		addIA5(b, tagDNS, "DnsName", n.DNS, 253)
	case n.URI != "":
		addIA5(b, tagURI, "UniformResourceIdentifier", n.URI, 253)
	case n.IP != "":
		ip, err := netip.ParseAddr(n.IP)
		if err != nil || ip.Zone() != "" {
			b.SetError(faultf(InvalidArgs, "IpAddress %.64q is not an IPv4 or IPv6 address", n.IP))
			return
		}
		b.AddASN1(tagIP, func(b *cryptobyte.Builder) { b.AddBytes(ip.AsSlice()) })
	case n.RegisteredID != "":
		addOIDAs(b, tagRegisteredID, n.RegisteredID)
	case n.DirectoryName != nil:
		name, err := n.DirectoryName.Encode()
		if err != nil {
			b.SetError(err)
			return
		}
		b.AddASN1(tagDirectoryName, func(b *cryptobyte.Builder) { b.AddBytes(name) })
	case n.OtherName != nil:
		b.AddASN1(tagOtherName, func(b *cryptobyte.Builder) {
			addOIDAs(b, cbasn1.OBJECT_IDENTIFIER, n.OtherName.TypeID)
			addText(b, 0, "OtherName Value", n.OtherName.Value)
		})
	case n.EDIParty != nil:
		b.AddASN1(tagEDIParty, func(b *cryptobyte.Builder) {
			if n.EDIParty.NameAssigner != "" {
				addText(b, 0, "EdiPartyName NameAssigner", n.EDIParty.NameAssigner)
			}
			addText(b, 1, "EdiPartyName PartyName", n.EDIParty.PartyName)
		})
	}
}

func (n GeneralName) members() int {
	count := 0
	for _, set := range []bool{n.OtherName != nil, n.Email != "", n.DNS != "", n.DirectoryName != nil, n.EDIParty != nil, n.URI != "", n.IP != "", n.RegisteredID != ""} {
		if set {
			count++
		}
	}
	return count
}

func addIA5(b *cryptobyte.Builder, tag cbasn1.Tag, kind, value string, most int) {
	if !isIA5(value, most) {
		b.SetError(faultf(InvalidArgs, "%s must be 1 to %d printable ASCII characters; an international name goes in as its punycode", kind, most))
		return
	}
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
}

// addText is a UTF8String under an explicit tag.
func addText(b *cryptobyte.Builder, number uint8, kind, value string) {
	if len(value) == 0 || len(value) > 256 || !utf8.ValidString(value) {
		b.SetError(faultf(InvalidArgs, "%s must have 1 to 256 bytes of UTF-8", kind))
		return
	}
	b.AddASN1(cbasn1.Tag(number).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	})
}

// addOIDAs is an object identifier under a tag of its own.
func addOIDAs(b *cryptobyte.Builder, tag cbasn1.Tag, text string) {
	oid, err := parseOID(text)
	if err != nil {
		b.SetError(err)
		return
	}
	var plain cryptobyte.Builder
	plain.AddASN1ObjectIdentifier(oid)
	element := cryptobyte.String(must(&plain))
	var content cryptobyte.String
	if !element.ReadASN1(&content, cbasn1.OBJECT_IDENTIFIER) {
		b.SetError(faultf(InvalidArgs, "object identifier %q cannot be encoded", text))
		return
	}
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
}

// isIA5 wants visible ASCII: a space or control character in a name is a
// mistake or an attack.
func isIA5(text string, most int) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return text != "" && len(text) <= most
}
