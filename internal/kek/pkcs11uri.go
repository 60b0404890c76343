package kek

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// PKCS11 is an AES key of 256 bits on a PKCS #11 token, which it never leaves.
type PKCS11 struct {
	uri    string
	Module string // path of the token's library
	Token  string // label
	Object string // label of the key
	PIN    string // file with the PIN
}

// String implements Key. The URI has no PIN.
func (p PKCS11) String() string { return p.uri }

// parsePKCS11 reads pkcs11:token=T;object=KEY?module-path=LIBRARY&pin-source=FILE,
// a URI of RFC 7512.
func parsePKCS11(uri string) (Key, error) {
	p, err := readPKCS11(uri)
	if err != nil {
		return nil, fmt.Errorf("read %s:…: %w", providerPKCS11, err)
	}
	return p, pkcs11Support()
}

func readPKCS11(uri string) (PKCS11, error) {
	p := PKCS11{uri: uri}
	rest, ok := strings.CutPrefix(uri, providerPKCS11+":")
	if !ok {
		return p, errors.New("it does not begin with pkcs11:")
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := attributes(path, ";", map[string]*string{"token": &p.Token, "object": &p.Object}); err != nil {
		return p, err
	}
	if err := attributes(query, "&", map[string]*string{"module-path": &p.Module, "pin-source": &p.PIN}); err != nil {
		return p, err
	}
	p.PIN = strings.TrimPrefix(p.PIN, "file:")
	return p, nil
}

// attributes reads name=value pairs, percent-encoded. All of them must be there,
// each once, and no other.
func attributes(text, separator string, want map[string]*string) error {
	for pair := range strings.SplitSeq(text, separator) {
		name, value, _ := strings.Cut(pair, "=")
		into, known := want[name]
		switch {
		case pair == "":
			continue
		case name == "pin-value":
			return errors.New("pin-value would show the PIN: put it into a file, and name that by pin-source")
		case !known:
			return fmt.Errorf("%q is not one of its attributes: token, object; module-path, pin-source", name)
		case *into != "":
			return fmt.Errorf("%s is given twice", name)
		}
		text, err := url.PathUnescape(value)
		if err != nil {
			return fmt.Errorf("%s cannot be read: it is not percent-encoded", name)
		}
		*into = text
	}
	for _, name := range []string{"token", "object", "module-path", "pin-source"} {
		if into, asked := want[name]; asked && *into == "" {
			return fmt.Errorf("%s is missing: pkcs11:token=T;object=KEY?module-path=LIBRARY&pin-source=FILE", name)
		}
	}
	return nil
}
