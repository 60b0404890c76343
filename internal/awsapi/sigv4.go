package awsapi

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"

	// maxSkew is how far a signature's time may be from ours, both ways.
	maxSkew = 5 * time.Minute
	// maxExpires is the longest life of a presigned request.
	maxExpires = 7 * 24 * time.Hour
)

// The query parameters of a presigned request.
const (
	presignPrefix        = "X-Amz-"
	presignAlgorithm     = "X-Amz-Algorithm"
	presignCredential    = "X-Amz-Credential"
	presignDate          = "X-Amz-Date"
	presignExpires       = "X-Amz-Expires"
	presignSignedHeaders = "X-Amz-SignedHeaders"
	presignSignature     = "X-Amz-Signature"
	presignToken         = "X-Amz-Security-Token"
)

// The codes of the authentication layer; restJson1 services send them with 403.
const (
	codeMissingToken  = "MissingAuthenticationTokenException"
	codeIncomplete    = "IncompleteSignatureException"
	codeBadSignature  = "InvalidSignatureException"
	codeUnknownClient = "UnrecognizedClientException"
	codeExpired       = "ExpiredTokenException"
	codeAccessDenied  = "AccessDeniedException"
)

const (
	messageMismatch     = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	messageInvalidToken = "The security token included in the request is invalid."
	messageExpired      = "The security token included in the request is expired"
)

// errKeysUnavailable: the store cannot tell now whether a key exists.
var errKeysUnavailable = errors.New("look up access key")

func refuse(code, format string, args ...any) *api.Exception {
	return api.Exceptionf(code, http.StatusForbidden, format, args...)
}

// signature is a parsed signature, none of it checked against a key yet.
type signature struct {
	keyID, date, region, service string

	signedHeaders []string
	value         string    // 64 hexadecimal digits
	time          time.Time // the request's own
	expires       time.Duration
	presigned     bool
	hasToken      bool // a security token came along, be it empty
	token         string
}

// scope is the credential scope without the key.
func (s signature) scope() string {
	return s.date + "/" + s.region + "/" + s.service + "/" + terminator
}

// parseAuthorization reads the Authorization header.
func parseAuthorization(header string) (signature, error) {
	var s signature
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return s, refuse(codeIncomplete, "Authorization header must start with '%s': only Signature Version 4 is understood", algorithm)
	}
	fields := map[string]string{}
	for piece := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.Trim(piece, " "), "=")
		if _, twice := fields[name]; !ok || twice || !slices.Contains([]string{"Credential", "SignedHeaders", "Signature"}, name) {
			return s, refuse(codeIncomplete, "%s is not a valid key=value pair (missing, repeated or unknown) in Authorization header", quote(piece))
		}
		fields[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			return s, refuse(codeIncomplete, "Authorization header requires '%s' parameter.", name)
		}
	}
	if err := s.parseCredential(fields["Credential"]); err != nil {
		return s, err
	}
	return s, s.parseRest(fields["SignedHeaders"], fields["Signature"])
}

// parseCredential reads KEY/DATE/REGION/SERVICE/aws4_request.
func (s *signature) parseCredential(credential string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || parts[4] != terminator || slices.Contains(parts, "") {
		return refuse(codeIncomplete, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/%s, got %s", terminator, quote(credential))
	}
	for _, part := range parts {
		if len(part) > 128 || strings.ContainsFunc(part, notCredential) {
			return refuse(codeIncomplete, "Credential has an element that is not one: %s", quote(part))
		}
	}
	s.keyID, s.date, s.region, s.service = parts[0], parts[1], parts[2], parts[3]
	return nil
}

func notCredential(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
}

// parseRest reads the list of signed headers, which must be in order as every
// SDK sends it, and the signature itself.
func (s *signature) parseRest(signedHeaders, value string) error {
	s.signedHeaders = strings.Split(signedHeaders, ";")
	for i, name := range s.signedHeaders {
		if name == "" || strings.ToLower(name) != name || strings.ContainsAny(name, " \t:,=") {
			return refuse(codeIncomplete, "SignedHeaders has an element that is not a lower-case header name: %s", quote(name))
		}
		if i > 0 && s.signedHeaders[i-1] >= name {
			return refuse(codeIncomplete, "SignedHeaders must be sorted and without repetitions: %s", quote(signedHeaders))
		}
	}
	if len(value) != 64 || strings.Trim(value, "0123456789abcdef") != "" {
		return refuse(codeIncomplete, "Signature must be 64 lower-case hexadecimal digits")
	}
	s.value = value
	return nil
}

// parseTime reads the signature's time, which its scope must agree with.
func (s *signature) parseTime(text string) error {
	t, err := time.Parse(timeFormat, text)
	if err != nil {
		return refuse(codeIncomplete, "Date must be in ISO-8601 'basic format'. Got %s. See http://en.wikipedia.org/wiki/ISO_8601", quote(text))
	}
	if t.Format("20060102") != s.date {
		return refuse(codeBadSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", s.date, t.Format("20060102"), text)
	}
	s.time = t
	return nil
}

// parsePresigned reads the query of a presigned request.
func parsePresigned(query []param) (signature, error) {
	var s signature
	fields := map[string]string{}
	for _, p := range query {
		if !strings.HasPrefix(p.name, presignPrefix) {
			continue
		}
		if _, twice := fields[p.name]; twice {
			return s, refuse(codeIncomplete, "query parameter %s is given twice", quote(p.name))
		}
		fields[p.name] = p.value
	}
	for _, name := range []string{presignAlgorithm, presignCredential, presignDate, presignExpires, presignSignedHeaders, presignSignature} {
		if fields[name] == "" {
			return s, refuse(codeIncomplete, "AWS query-string parameters must include '%s'.", name)
		}
	}
	if fields[presignAlgorithm] != algorithm {
		return s, refuse(codeIncomplete, "%s must be '%s', not %s", presignAlgorithm, algorithm, quote(fields[presignAlgorithm]))
	}
	if err := s.parseCredential(fields[presignCredential]); err != nil {
		return s, err
	}
	if err := s.parseRest(fields[presignSignedHeaders], fields[presignSignature]); err != nil {
		return s, err
	}
	if err := s.parseTime(fields[presignDate]); err != nil {
		return s, err
	}
	seconds, err := strconv.Atoi(fields[presignExpires])
	if err != nil || seconds < 1 || seconds > int(maxExpires/time.Second) {
		return s, refuse(codeIncomplete, "%s must be a number of seconds from 1 to %d, not %s", presignExpires, int(maxExpires/time.Second), quote(fields[presignExpires]))
	}
	s.expires, s.presigned = time.Duration(seconds)*time.Second, true
	s.token, s.hasToken = fields[presignToken]
	return s, nil
}

// checkScope refuses what no key could make good.
func (s signature) checkScope(cfg Config) error {
	if s.region != cfg.Region {
		return refuse(codeBadSignature, "Credential should be scoped to a valid region, not '%s': this server's region is '%s'.", s.region, cfg.Region)
	}
	return s.checkWindow(cfg.now())
}

// checkWindow compares the signature's time with ours.
func (s signature) checkWindow(now time.Time) error {
	now = now.UTC()
	at := s.time.Format(timeFormat)
	if latest := now.Add(maxSkew); s.time.After(latest) {
		return refuse(codeBadSignature, "Signature not yet current: %s is still later than %s (%s + 5 min.)", at, latest.Format(timeFormat), now.Format(timeFormat))
	}
	if s.presigned {
		if end := s.time.Add(s.expires); now.After(end) {
			return refuse(codeBadSignature, "Signature expired: %s is now later than %s (%s + %s)", now.Format(timeFormat), end.Format(timeFormat), at, s.expires)
		}
		return nil
	}
	if earliest := now.Add(-maxSkew); s.time.Before(earliest) {
		return refuse(codeBadSignature, "Signature expired: %s is now earlier than %s (%s - 5 min.)", at, earliest.Format(timeFormat), now.Format(timeFormat))
	}
	return nil
}

// checkSigned makes sure that nothing that a decision rests on is unsigned:
// present lists the headers of the request that must be signed.
func (s signature) checkSigned(present []string) error {
	for _, name := range present {
		if !slices.Contains(s.signedHeaders, name) {
			return refuse(codeBadSignature, "'%s' must be a 'SignedHeader' in the AWS Authorization.", name)
		}
	}
	return nil
}

// authenticate is the one place where a signature is compared. forms are the
// ways in which the same request may have been signed; one must match.
func authenticate(ctx context.Context, cfg Config, s signature, forms ...signedForm) (iam.Principal, error) {
	if err := s.checkScope(cfg); err != nil {
		return iam.Principal{}, err
	}
	key, err := cfg.key(ctx, s)
	unknown := errors.Is(err, iam.ErrUnknownKey)
	if err != nil && !unknown {
		return iam.Principal{}, fmt.Errorf("%w: %w", errKeysUnavailable, err)
	}
	// An unknown key costs the same computation, so that the time of an answer
	// does not tell which keys exist.
	secret := key.Secret.Reveal()
	if unknown || secret == "" {
		secret, unknown = "there is no such key, but the time must pass", true
	}
	matched := false
	for i := range forms {
		want := sign(secret, s, forms[i].canonicalRequest(s.signedHeaders))
		matched = hmac.Equal([]byte(want), []byte(s.value)) || matched
	}
	switch {
	case unknown:
		return iam.Principal{}, refuse(codeUnknownClient, messageInvalidToken)
	case !matched:
		return iam.Principal{}, refuse(codeBadSignature, messageMismatch)
	case !key.Expires.IsZero() && !cfg.now().Before(key.Expires):
		return iam.Principal{}, refuse(codeExpired, messageExpired)
	}
	return key.Principal, nil
}

// key finds the key that a signature names: with a token it is a session's or
// none, without one it is not a session's.
func (c Config) key(ctx context.Context, s signature) (iam.Key, error) {
	if s.hasToken {
		return c.Keys.SessionKey(ctx, s.keyID, s.token)
	}
	return c.Keys.Key(ctx, s.keyID)
}
