package ca

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// DescribeSerial is a serial as ACM and Private CA show it: 03:e9.
func DescribeSerial(serial *big.Int) string {
	digits := hex.EncodeToString(serial.Bytes())
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	if len(pairs) == 0 {
		return "00"
	}
	return strings.Join(pairs, ":")
}

// ParseSerial reads a serial in hexadecimal, with colons or without, with
// leading zeros or without (certificates.md B.6).
func ParseSerial(text string) (*big.Int, error) {
	digits := strings.ReplaceAll(text, ":", "")
	serial, ok := new(big.Int).SetString(digits, 16)
	if !ok || len(digits) > 64 || strings.ContainsAny(digits, "+-_") {
		return nil, faultf(InvalidRequest, "serial %.100q is not hexadecimal", text)
	}
	return serial, nil
}

// DescribeName is a DER name in the order of the certificate: C=AU,ST=…,CN=….
func DescribeName(der []byte) string {
	input := cryptobyte.String(der)
	var name cryptobyte.String
	if !input.ReadASN1(&name, cbasn1.SEQUENCE) {
		return ""
	}
	var parts []string
	for !name.Empty() {
		var set, pair, value cryptobyte.String
		if !name.ReadASN1(&set, cbasn1.SET) {
			return ""
		}
		for !set.Empty() {
			var id asn1.ObjectIdentifier
			var tag cbasn1.Tag
			if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&id) || !pair.ReadAnyASN1(&value, &tag) {
				return ""
			}
			parts = append(parts, attributeName(id)+"="+escapeValue(strings.ToValidUTF8(string(value), "\uFFFD")))
		}
	}
	return strings.Join(parts, ",")
}

func attributeName(id asn1.ObjectIdentifier) string {
	text := id.String()
	for _, a := range subjectAttributes {
		if a.oid == text {
			return a.short
		}
	}
	switch text {
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	}
	return text
}

// escapeValue keeps one value from looking like two (RFC 4514 2.4).
func escapeValue(value string) string {
	var b strings.Builder
	for _, r := range value {
		switch {
		case strings.ContainsRune(`,+"\<>;`, r):
			b.WriteRune('\\')
			b.WriteRune(r)
		case isControl(r):
			fmt.Fprintf(&b, `\%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// DescribeIssuer is ACM's Issuer: the organization, or else the common name.
func DescribeIssuer(c *x509.Certificate) string {
	if len(c.Issuer.Organization) > 0 {
		return c.Issuer.Organization[0]
	}
	return c.Issuer.CommonName
}

// DescribeSigning is the algorithm that signed a certificate, by ACM's name:
// SHA256WITHRSA.
func DescribeSigning(c *x509.Certificate) string {
	for _, s := range signingAlgorithms {
		if s.x509 == c.SignatureAlgorithm {
			return string(s.name)
		}
	}
	return strings.ToUpper(c.SignatureAlgorithm.String())
}

// keyUsageNames are ACM's names, by bit.
var keyUsageNames = []string{
	"DIGITAL_SIGNATURE", "NON_REPUDIATION", "KEY_ENCIPHERMENT", "DATA_ENCIPHERMENT", "KEY_AGREEMENT",
	"CERTIFICATE_SIGNING", "CRL_SIGNING", "ENCIPHER_ONLY", "DECIPHER_ONLY",
}

// KeyUsageNames are the names of the usages in ACM's API.
func KeyUsageNames(usage x509.KeyUsage) []string {
	var names []string
	for bit, name := range keyUsageNames {
		if usage>>bit&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

// ExtendedUsage is an extended key usage by ACM's name, CUSTOM if it has none,
// and by object identifier.
type ExtendedUsage struct{ Name, OID string }

var extendedUsageNames = map[x509.ExtKeyUsage]ExtendedUsage{
	x509.ExtKeyUsageAny:             {"ANY", "2.5.29.37.0"},
	x509.ExtKeyUsageServerAuth:      {"TLS_WEB_SERVER_AUTHENTICATION", "1.3.6.1.5.5.7.3.1"},
	x509.ExtKeyUsageClientAuth:      {"TLS_WEB_CLIENT_AUTHENTICATION", "1.3.6.1.5.5.7.3.2"},
	x509.ExtKeyUsageCodeSigning:     {"CODE_SIGNING", "1.3.6.1.5.5.7.3.3"},
	x509.ExtKeyUsageEmailProtection: {"EMAIL_PROTECTION", "1.3.6.1.5.5.7.3.4"},
	x509.ExtKeyUsageIPSECEndSystem:  {"IPSEC_END_SYSTEM", "1.3.6.1.5.5.7.3.5"},
	x509.ExtKeyUsageIPSECTunnel:     {"IPSEC_TUNNEL", "1.3.6.1.5.5.7.3.6"},
	x509.ExtKeyUsageIPSECUser:       {"IPSEC_USER", "1.3.6.1.5.5.7.3.7"},
	x509.ExtKeyUsageTimeStamping:    {"TIME_STAMPING", "1.3.6.1.5.5.7.3.8"},
	x509.ExtKeyUsageOCSPSigning:     {"OCSP_SIGNING", "1.3.6.1.5.5.7.3.9"},
}

// ExtendedUsages are those of a certificate.
func ExtendedUsages(c *x509.Certificate) []ExtendedUsage {
	var all []ExtendedUsage
	for _, usage := range c.ExtKeyUsage {
		if named, ok := extendedUsageNames[usage]; ok {
			all = append(all, named)
			continue
		}
		all = append(all, ExtendedUsage{"CUSTOM", usage.OID().String()})
	}
	for _, id := range c.UnknownExtKeyUsage {
		all = append(all, ExtendedUsage{"CUSTOM", id.String()})
	}
	return all
}
