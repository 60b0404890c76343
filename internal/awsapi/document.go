package awsapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// document is a request body whose syntax is known to be good, read from front
// to back. JSON and CBOR are two: what reads one reads the other.
type document interface {
	// peek says what comes next; endKind is the end of a list or an object.
	peek() kind
	// next reads a scalar, or the beginning or the end of a list or an object.
	next() scalar
	// skip reads a whole value and says how a message shows it, "" if not at all.
	skip() string
}

// kind is what a value is.
type kind int

const (
	endKind kind = iota
	nullKind
	boolKind
	textKind
	numberKind
	objectKind
	listKind
	bytesKind // in CBOR alone
	timeKind  // in CBOR alone
)

func (k kind) String() string {
	switch k {
	case nullKind:
		return "null"
	case boolKind:
		return "a boolean"
	case textKind:
		return "a string"
	case numberKind:
		return "a number"
	case objectKind:
		return "an object"
	case listKind:
		return "a list"
	case bytesKind:
		return "bytes"
	case timeKind:
		return "a time"
	}
	return "nothing"
}

// scalar is a value without parts.
type scalar struct {
	text string // a text, bytes, or the digits of a number or a time
	yes  bool
}

// checkSyntax reads the whole document before any of it is used, so that the
// meaning of a prefix is never taken.
func checkSyntax(data []byte) (Fault, bool) {
	in := jsontext.NewDecoder(bytes.NewReader(data))
	for first := true; ; first = false {
		token, err := in.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && first:
			return Fault{Message: "is empty"}, true
		case errors.Is(err, io.EOF) && in.StackDepth() == 0:
			return Fault{}, false
		case err != nil:
			return syntaxFault(err), true
		case in.StackDepth() > maxDepth:
			return Fault{Message: errTooDeep.Error()}, true
		case inObject(in) > maxMembers:
			return Fault{Message: errTooWide.Error()}, true
		case token.Kind() == '"' && strings.ContainsRune(token.String(), 0):
			return Fault{Path: pointerPath(in.StackPointer()), Message: "must not contain a NUL character"}, true
		}
		if in.StackDepth() == 0 {
			if _, err := in.ReadToken(); !errors.Is(err, io.EOF) {
				return Fault{Message: "has something behind the end of its JSON document"}, true
			}
			return Fault{}, false
		}
	}
}

// inObject is how many members the object at hand has so far, 0 if it is none.
func inObject(in *jsontext.Decoder) int64 {
	kind, n := in.StackIndex(in.StackDepth())
	if kind != '{' {
		return 0
	}
	return (n + 1) / 2 // names count
}

func syntaxFault(err error) Fault {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return Fault{Message: "is not valid JSON: " + err.Error()}
	}
	path := pointerPath(syntax.JSONPointer)
	if errors.Is(syntax.Err, jsontext.ErrDuplicateName) && path != "" {
		return Fault{Path: path, Message: "is given twice"}
	}
	where := ""
	if path != "" {
		where = " within " + path
	}
	return Fault{Message: fmt.Sprintf("is not valid JSON: %v%s after byte %d", syntax.Err, where, syntax.ByteOffset)}
}

// pointerPath writes a JSON pointer as the paths of faults are written.
func pointerPath(pointer jsontext.Pointer) string {
	path := ""
	for token := range pointer.Tokens() {
		if i, err := strconv.Atoi(token); err == nil && path != "" {
			path = item(path, i)
		} else {
			path = join(path, shorten(token))
		}
	}
	return path
}

// jsonDocument reads JSON.
type jsonDocument struct{ in *jsontext.Decoder }

func newJSONDocument(data []byte) jsonDocument {
	return jsonDocument{jsontext.NewDecoder(bytes.NewReader(data))}
}

func (d jsonDocument) peek() kind {
	switch d.in.PeekKind() {
	case 'n':
		return nullKind
	case 't', 'f':
		return boolKind
	case '"':
		return textKind
	case '0':
		return numberKind
	case '{':
		return objectKind
	case '[':
		return listKind
	}
	return endKind
}

func (d jsonDocument) next() scalar {
	token, err := d.in.ReadToken()
	if err != nil {
		panic("awsapi: JSON that was good is bad: " + err.Error())
	}
	if kind := token.Kind(); kind == 't' || kind == 'f' {
		return scalar{yes: token.Bool()}
	}
	return scalar{text: token.String()}
}

func (d jsonDocument) skip() string {
	raw, err := d.in.ReadValue()
	if err != nil {
		panic("awsapi: JSON that was good is bad: " + err.Error())
	}
	return string(raw)
}
