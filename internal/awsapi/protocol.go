package awsapi

import (
	"encoding/xml"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api"
)

// protocol is how a client of AWS speaks. A client must be answered in its own:
// one that speaks CBOR reads JSON as CBOR and breaks. Every header that tells
// the protocol must be signed, so a request that verifies has no other.
type protocol int

const (
	restJSON  protocol = iota // App Mesh and the operator API: method and path
	jsonRPC                   // AWS JSON 1.1: POST / with X-Amz-Target
	rpcCBOR                   // Smithy RPC v2 CBOR: POST /service/X/operation/Y
	formQuery                 // AWS query: Action=… in a form or a query; answers in XML
)

const (
	targetHeader   = "X-Amz-Target"
	protocolHeader = "Smithy-Protocol"
	mediaForm      = "application/x-www-form-urlencoded"
)

// protocolOf looks at what a request says before anything of it is verified.
func protocolOf(r *http.Request) protocol {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch {
	case len(r.Header.Values(protocolHeader)) > 0:
		return rpcCBOR
	case len(r.Header.Values(targetHeader)) > 0:
		return jsonRPC
	case path == "/" && (strings.EqualFold(strings.TrimSpace(media), mediaForm) || strings.Contains("&"+query, "&Action=")):
		return formQuery
	}
	return restJSON
}

// mediaTypes are what a protocol's bodies may be called.
func (p protocol) mediaTypes() []string {
	switch p {
	case jsonRPC:
		return []string{"application/x-amz-json-1.1"}
	case rpcCBOR:
		return []string{"application/cbor"}
	case formQuery:
		return []string{mediaForm}
	default:
		return []string{"application/json", "application/x-amz-json-1.1"}
	}
}

// head sets the headers that every answer of the protocol has.
func (p protocol) head(h http.Header) {
	switch p {
	case jsonRPC:
		h.Set("Content-Type", "application/x-amz-json-1.1")
	case rpcCBOR:
		h.Set("Content-Type", "application/cbor")
		h.Set(protocolHeader, "rpc-v2-cbor")
	case formQuery:
		h.Set("Content-Type", "text/xml")
	default:
		h.Set("Content-Type", "application/json")
	}
}

// error writes an exception as the protocol's clients expect it: its code, its
// status and its body.
func (p protocol) error(e *api.Exception, requestID string) (code string, status int, body []byte) {
	code, status = e.Code, e.Status
	message := strings.ToValidUTF8(e.Message, "�")
	switch p {
	case jsonRPC, rpcCBOR:
		if status < http.StatusInternalServerError {
			status = http.StatusBadRequest
		}
		if code == codeTooMany {
			code = codeThrottling
		}
		if p == rpcCBOR {
			return code, status, cborError(code, message)
		}
	case formQuery:
		code, status = queryCode(code, status)
		return code, status, queryError(code, message, status, requestID)
	}
	body, err := json.Marshal(errorBody{Type: code, Message: message})
	if err != nil { // not reached: both are UTF-8
		body = []byte("{}")
	}
	return code, status, body
}

type errorBody struct {
	Type    string `json:"__type"`
	Message string `json:"message"`
}

// cborError is {"__type": code, "message": message} in CBOR (RFC 8949).
func cborError(code, message string) []byte {
	out := []byte{0xa2} // a map of two
	for _, text := range []string{"__type", code, "message", message} {
		out = append(cborHead(out, 3, len(text)), text...)
	}
	return out
}

// cborHead appends the head of an item of a major type.
func cborHead(out []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(out, major<<5|byte(n))
	case n < 1<<8:
		return append(out, major<<5|24, byte(n))
	case n < 1<<16:
		return append(out, major<<5|25, byte(n>>8), byte(n))
	}
	return append(out, major<<5|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// queryCodes are the names that differ by more than the ending "Exception".
var queryCodes = map[string]string{
	codeBadSignature:  "SignatureDoesNotMatch",
	codeUnknownClient: "InvalidClientTokenId",
	codeBadRequest:    "ValidationError",
	codeValidation:    "ValidationError",
	codeInternal:      "InternalFailure",
	codeTooMany:       "Throttling",
	codeThrottling:    "Throttling",
	codeUnknown:       "InvalidAction",
}

// queryCode names an error as services of the query protocol do.
func queryCode(code string, status int) (string, int) {
	renamed, ok := queryCodes[code]
	if !ok {
		renamed = strings.TrimSuffix(code, "Exception")
	}
	switch renamed {
	case "Throttling", "IncompleteSignature", "InvalidAction", "ValidationError":
		status = http.StatusBadRequest
	}
	return renamed, status
}

type queryFault struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

func queryError(code, message string, status int, requestID string) []byte {
	fault := queryFault{Namespace: stsNamespace, Type: "Sender", Code: code, Message: message, RequestID: requestID}
	if status >= http.StatusInternalServerError {
		fault.Type = "Receiver"
	}
	body, err := xml.Marshal(fault)
	if err != nil { // not reached: it is all text
		return []byte("<ErrorResponse/>")
	}
	return body
}
