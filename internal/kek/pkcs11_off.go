//go:build !pkcs11 || !cgo

package kek

import (
	"context"
	"errors"
)

var errNoPKCS11 = errors.New("this fairlead was built without PKCS #11, which needs cgo: build it with CGO_ENABLED=1 go build -tags pkcs11 ./cmd/fairlead")

func pkcs11Support() error { return errNoPKCS11 }

// Wrap implements Key.
func (p PKCS11) Wrap(context.Context, []byte, string) (Wrapped, error) {
	return Wrapped{}, errNoPKCS11
}

// Unwrap implements Key.
func (p PKCS11) Unwrap(context.Context, Wrapped, string) ([]byte, error) {
	return nil, errNoPKCS11
}
