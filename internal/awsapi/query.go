package awsapi

import (
	"context"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// STSVersion is the one version of the one service of the query protocol.
const (
	STSVersion   = "2011-06-15"
	stsNamespace = "https://sts.amazonaws.com/doc/" + STSVersion + "/"
)

// Form is a request of the query protocol.
type Form struct {
	Principal iam.Principal
	values    map[string]string
}

// Value returns a parameter, or "" if it is absent.
func (f *Form) Value(name string) string { return f.values[name] }

// Int returns a parameter that is a number, or the default if it is absent. The
// error is for the caller.
func (f *Form) Int(name string, least, most, absent int64) (int64, error) {
	text, there := f.values[name]
	if !there {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, Faults{{Path: name, Value: shorten(text), Message: "must be a number from " + formatInt(least) + " to " + formatInt(most) + ", not " + quote(text)}}
	}
	return n, nil
}

// FormFunc implements an action of the query protocol. Its result is a
// structure with the tags of encoding/xml, its error as Mount has it.
type FormFunc func(ctx context.Context, f *Form) (any, error)

// HandleAction routes an action of the query protocol: POST / with a form, or
// GET / with a query, of STSVersion, signed for the service. Parameters that it
// does not take are refused.
func (m *Mux) HandleAction(service, action string, do FormFunc, parameters ...string) {
	known := map[string]bool{"Action": true, "Version": true}
	for _, name := range parameters {
		known[name] = true
	}
	m.actions[action] = &route{service: service, action: action, errors: []string{codeValidation},
		call: func(ctx context.Context, in incoming) (any, error) {
			if err := in.authorize(ctx, in.form); err != nil {
				return nil, err
			}
			var l faultList
			for name, value := range in.form {
				if !known[name] {
					l.add(shorten(name), shorten(value), "is not a known parameter of %s", action)
				}
			}
			if len(l.faults) > 0 {
				return nil, l.faults
			}
			result, err := do(ctx, &Form{Principal: in.principal, values: in.form})
			if err != nil {
				return nil, err
			}
			return queryAnswer{action: action, result: result, requestID: RequestIDFrom(ctx)}, nil
		}}
}

// findAction returns the route of a request of the query protocol, and its
// parameters.
func (m *Mux) findAction(method string, v verified) (*route, map[string]string, error) {
	params := v.query
	switch method {
	case http.MethodGet:
	case http.MethodPost:
		if len(params) > 0 {
			return nil, nil, badForm("parameters are in the form or in the query, not in both")
		}
		// In a form, unlike in a signed query, a plus sign is a space.
		var err error
		if params, err = parseQuery(strings.ReplaceAll(string(v.body), "+", "%20")); err != nil {
			return nil, nil, badForm("the form cannot be read: %v", err)
		}
	default:
		return nil, nil, &notAllowed{allowed: []string{http.MethodGet, http.MethodPost}, method: method}
	}
	form := map[string]string{}
	for _, p := range params {
		if _, twice := form[p.name]; twice {
			return nil, nil, badForm("%s is given twice", shorten(p.name))
		}
		if !utf8.ValidString(p.name) || !utf8.ValidString(p.value) {
			return nil, nil, badForm("%s is not UTF-8 text", quote(p.name))
		}
		form[p.name] = p.value
	}
	found := m.actions[form["Action"]]
	if found == nil || form["Version"] != STSVersion {
		return nil, nil, api.Exceptionf(codeUnknown, http.StatusBadRequest, "Could not find operation %s for version %s", shorten(form["Action"]), shorten(form["Version"]))
	}
	return found, form, nil
}

func badForm(format string, args ...any) error {
	return api.Exceptionf(codeValidation, http.StatusBadRequest, format, args...)
}

// queryAnswer is <ActionResponse><ActionResult>…</ActionResult>….
type queryAnswer struct {
	action    string
	result    any
	requestID string
}

// MarshalXML writes elements whose names are made of the action's.
func (a queryAnswer) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	response := xml.StartElement{Name: xml.Name{Local: a.action + "Response"}, Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: stsNamespace}}}
	if err := e.EncodeToken(response); err != nil {
		return err
	}
	if err := e.EncodeElement(a.result, xml.StartElement{Name: xml.Name{Local: a.action + "Result"}}); err != nil {
		return err
	}
	metadata := struct{ RequestId string }{a.requestID}
	if err := e.EncodeElement(metadata, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}}); err != nil {
		return err
	}
	return e.EncodeToken(response.End())
}
