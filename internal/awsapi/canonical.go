package awsapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// signedForm is what a SigV4 signature covers, as it was received: HTTP
// requests and gRPC streams both come down to it.
type signedForm struct {
	method string
	path   string // escaped, as on the request line
	query  []param
	// header returns the values of a header by its lower-case name, host
	// included; none: the header is absent.
	header      func(name string) []string
	payloadHash string // what the canonical request ends with
}

// maxParams bounds a query, well above what any operation has.
const maxParams = 100

// param is one query parameter, decoded.
type param struct{ name, value string }

// parseQuery splits and decodes a raw query. A plus sign is itself: the
// signature is over it as itself, so nothing else may read it as a space.
func parseQuery(raw string) ([]param, error) {
	if raw == "" {
		return nil, nil
	}
	if strings.Count(raw, "&") >= maxParams {
		return nil, fmt.Errorf("it has more than %d parameters", maxParams)
	}
	var params []param
	for piece := range strings.SplitSeq(raw, "&") {
		rawName, rawValue, _ := strings.Cut(piece, "=")
		name, err := unescape(rawName)
		if err != nil {
			return nil, err
		}
		value, err := unescape(rawValue)
		if err != nil {
			return nil, err
		}
		if name == "" {
			return nil, errors.New("a query parameter has no name")
		}
		params = append(params, param{name, value})
	}
	return params, nil
}

// unescape decodes percent-encoding and nothing else.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", fmt.Errorf("%q ends in the middle of a percent-encoded byte", shorten(s))
		}
		decoded, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", fmt.Errorf("%q is not a percent-encoded byte", s[i:i+3])
		}
		b.Write(decoded)
		i += 2
	}
	return b.String(), nil
}

// escape percent-encodes all bytes but the unreserved ones and those in keep.
func escape(s, keep string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == '~', strings.IndexByte(keep, c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// canonicalRequest is the text whose hash is signed. The path is escaped again
// on top of how it was received, as every service but S3 has it.
func (f *signedForm) canonicalRequest(signedHeaders []string) string {
	var b strings.Builder
	b.WriteString(f.method + "\n" + escape(f.path, "/") + "\n" + canonicalQuery(f.query) + "\n")
	for _, name := range signedHeaders {
		b.WriteString(name + ":" + canonicalValue(f.header(name)) + "\n")
	}
	b.WriteString("\n" + strings.Join(signedHeaders, ";") + "\n" + f.payloadHash)
	return b.String()
}

// canonicalQuery encodes every parameter and sorts after encoding.
func canonicalQuery(params []param) string {
	encoded := make([]string, 0, len(params))
	for _, p := range params {
		if p.name == presignSignature {
			continue
		}
		// The separator sorts below every byte of an encoded name, so that
		// sorting pairs sorts by name first.
		encoded = append(encoded, escape(p.name, "")+"\x00"+escape(p.value, ""))
	}
	slices.Sort(encoded)
	return strings.ReplaceAll(strings.Join(encoded, "&"), "\x00", "=")
}

// canonicalValue trims values, folds inner spaces and joins repetitions.
func canonicalValue(values []string) string {
	folded := make([]string, len(values))
	for i, v := range values {
		folded[i] = strings.Join(strings.FieldsFunc(v, func(r rune) bool { return r == ' ' }), " ")
	}
	return strings.Join(folded, ",")
}

// sign computes the hexadecimal signature of a canonical request.
func sign(secret string, s signature, canonical string) string {
	hash := sha256.Sum256([]byte(canonical))
	text := algorithm + "\n" + s.time.Format(timeFormat) + "\n" + s.scope() + "\n" + hex.EncodeToString(hash[:])
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, terminator} {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, text))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
