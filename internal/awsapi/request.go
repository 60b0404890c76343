package awsapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// verified is a request whose signature holds: only what it covers is used.
type verified struct {
	principal iam.Principal
	service   string // of the credential scope
	path      string // escaped, as on the request line
	query     []param
	body      []byte
	release   func() // to be called when the body is used no more
}

// verify reads a request and checks its signature. Its errors are exceptions
// for the caller, or mean that keys cannot be looked up now.
func (c Config) verify(r *http.Request, b bodies) (out verified, err error) {
	path, rawQuery, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		return verified{}, api.Exceptionf(codeBadRequest, http.StatusBadRequest, "the request target must be a path")
	}
	query, err := parseQuery(rawQuery)
	if err != nil {
		return verified{}, api.Exceptionf(codeBadRequest, http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	s, err := findSignature(r, query)
	if err != nil {
		return verified{}, err
	}
	if err := s.checkSigned(mustBeSigned(r.Header)); err != nil {
		return verified{}, err
	}
	if err := s.checkScope(c); err != nil { // before a stranger's body is read
		return verified{}, err
	}
	if err := checkFraming(r); err != nil {
		return verified{}, err
	}
	known := c.mayBeSigned(r.Context(), s)
	read, err := b.read(r, known)
	if err != nil {
		return verified{}, err
	}
	defer func() {
		if err != nil {
			read.release()
		}
	}()
	form := signedForm{method: r.Method, path: path, query: query, header: headerOf(r), payloadHash: read.hash}
	if sent := r.Header.Values("X-Amz-Content-Sha256"); len(sent) > 0 && (len(sent) > 1 || sent[0] != form.payloadHash) {
		return verified{}, refuse(codeBadSignature, "The x-amz-content-sha256 header must be the SHA-256 of the request body; unsigned and streamed payloads are not accepted.")
	}
	principal, err := authenticate(r.Context(), c, s, form)
	if err != nil {
		return verified{}, err
	}
	if !known { // the key was made this moment, and the body was not kept
		return verified{}, refuse(codeUnknownClient, messageInvalidToken)
	}
	v := verified{principal: principal, service: s.service, path: path, body: read.content, release: read.release}
	for _, p := range query {
		if !s.presigned || !strings.HasPrefix(p.name, presignPrefix) {
			v.query = append(v.query, p)
		}
	}
	return v, nil
}

// findSignature finds the one signature of a request: in its headers or, for
// GET, in its query. A request with both has none.
func findSignature(r *http.Request, query []param) (signature, error) {
	authorization := r.Header.Values("Authorization")
	inQuery := false
	for _, p := range query {
		inQuery = inQuery || len(p.name) >= len(presignPrefix) && strings.EqualFold(p.name[:len(presignPrefix)], presignPrefix)
	}
	switch {
	case len(authorization) == 0 && !inQuery:
		return signature{}, refuse(codeMissingToken, "Missing Authentication Token")
	case len(authorization) > 1 || len(authorization) == 1 && inQuery:
		return signature{}, refuse(codeIncomplete, "a request has one signature: in one Authorization header or in its query")
	case inQuery && r.Method != http.MethodGet:
		return signature{}, refuse(codeIncomplete, "only GET requests can be presigned")
	case inQuery && (len(r.Header.Values("X-Amz-Date")) > 0 || len(r.Header.Values("X-Amz-Security-Token")) > 0):
		return signature{}, refuse(codeIncomplete, "a presigned request has its date and its token in the query alone")
	case inQuery:
		return parsePresigned(query)
	}
	s, err := parseAuthorization(authorization[0])
	if err != nil {
		return s, err
	}
	date := r.Header.Values("X-Amz-Date")
	if len(date) != 1 {
		return s, refuse(codeIncomplete, "Authorization header requires existence of one 'X-Amz-Date' header.")
	}
	if err := s.setToken(r.Header.Values("X-Amz-Security-Token")); err != nil {
		return s, err
	}
	return s, s.parseTime(date[0])
}

// setToken takes the values of the X-Amz-Security-Token header.
func (s *signature) setToken(values []string) error {
	if len(values) > 1 {
		return refuse(codeIncomplete, "a request has one X-Amz-Security-Token header")
	}
	if s.hasToken = len(values) == 1; s.hasToken {
		s.token = values[0]
	}
	return nil
}

// checkFraming refuses what no AWS client sends and parties on the way may read
// in more than one way: chunks, trailers, and a second name of the host.
func checkFraming(r *http.Request) error {
	if len(r.TransferEncoding) > 0 || r.Trailer != nil {
		return api.Exceptionf(codeBadRequest, http.StatusBadRequest, "send the body with a Content-Length: chunks and trailers are not taken")
	}
	// HTTP/2 has the host in :authority; net/http leaves a Host beside it alone.
	for _, host := range r.Header.Values("Host") {
		if host != r.Host {
			return api.Exceptionf(codeBadRequest, http.StatusBadRequest, "the Host header is not the request's :authority")
		}
	}
	return nil
}

// mustBeSigned lists the headers of a request that may decide something.
func mustBeSigned(h http.Header) []string {
	names := []string{"host"}
	for name := range h {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") || lower == "content-type" || lower == "smithy-protocol" {
			names = append(names, lower)
		}
	}
	return names
}

// headerOf gives back the headers that net/http takes out of the map.
func headerOf(r *http.Request) func(string) []string {
	return func(name string) []string {
		switch name {
		case "host":
			return []string{r.Host}
		case "content-length":
			if r.ContentLength >= 0 {
				return []string{formatInt(r.ContentLength)}
			}
		}
		return r.Header.Values(name)
	}
}

// checkContent refuses bodies that are not what the protocol has.
func checkContent(p protocol, h http.Header, body []byte) error {
	unsupported := func(format string, args ...any) error {
		return api.Exceptionf("UnsupportedMediaTypeException", http.StatusUnsupportedMediaType, format, args...)
	}
	for _, encoding := range h.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return unsupported("content-encoding %s is not understood: send the body as it is", quote(encoding))
		}
	}
	types := h.Values("Content-Type")
	if len(types) == 0 || len(body) == 0 {
		return nil
	}
	media, parameters, _ := strings.Cut(types[0], ";")
	parameters = strings.ToLower(strings.ReplaceAll(parameters, " ", ""))
	known := p.mediaTypes()
	if slices.Contains(known, strings.ToLower(strings.TrimSpace(media))) && len(types) == 1 && (parameters == "" || parameters == "charset=utf-8") {
		return nil
	}
	return unsupported("content-type %s is not understood: send %s", quote(strings.Join(types, ", ")), known[0])
}

// splitPath cuts a raw path into its raw segments.
func splitPath(path string) []string { return strings.Split(path[1:], "/") }

// label decodes a segment of the path.
func label(raw string) (string, error) {
	s, err := unescape(raw)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return "", errors.New("a path segment is not UTF-8 text without NUL")
	}
	return s, nil
}
