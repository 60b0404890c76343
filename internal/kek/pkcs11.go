//go:build pkcs11 && cgo

package kek

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// nonceSize and tagBits are AES-GCM's.
const (
	nonceSize = 12
	tagBits   = 128
)

func pkcs11Support() error { return nil }

// Wrap implements Key: AES-GCM on the token. Its nonce goes before the rest.
func (p PKCS11) Wrap(_ context.Context, root []byte, lineage string) (w Wrapped, err error) {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	err = p.use(func(t token) error {
		params := pkcs11.NewGCMParams(nonce, bound(providerPKCS11, lineage), tagBits)
		defer params.Free()
		if err := t.EncryptInit(t.session, gcm(params), t.key); err != nil {
			return err
		}
		sealed, err := t.Encrypt(t.session, root)
		if given := params.IV(); err == nil && len(given) == nonceSize {
			nonce = bytes.Clone(given) // some tokens make their own
		}
		w = Wrapped{Provider: providerPKCS11, Key: p.Object, Blob: append(nonce, sealed...)}
		return err
	})
	return w, err
}

// Unwrap implements Key.
func (p PKCS11) Unwrap(_ context.Context, w Wrapped, lineage string) (root []byte, err error) {
	if err := w.of(providerPKCS11); err != nil {
		return nil, err
	}
	if len(w.Blob) <= nonceSize {
		return nil, ErrWrong
	}
	err = p.use(func(t token) error {
		params := pkcs11.NewGCMParams(w.Blob[:nonceSize], bound(providerPKCS11, lineage), tagBits)
		defer params.Free()
		if err := t.DecryptInit(t.session, gcm(params), t.key); err != nil {
			return err
		}
		opened, err := t.Decrypt(t.session, w.Blob[nonceSize:])
		if code, ok := errors.AsType[pkcs11.Error](err); ok && notOpened(code) {
			return fmt.Errorf("%w: %w", ErrWrong, err)
		}
		root = opened
		return err
	})
	if err != nil {
		return nil, err
	}
	return checkRoot(root)
}

// notOpened are the answers of a token to what its key has not encrypted: there
// is none in the standard that says just that.
func notOpened(code pkcs11.Error) bool {
	switch code {
	case pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_FUNCTION_FAILED:
		return true
	}
	return false
}

func gcm(params *pkcs11.GCMParams) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
}

// token is one that is logged in to.
type token struct {
	*pkcs11.Ctx
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

// use logs in to the token for one piece of work.
func (p PKCS11) use(work func(token) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("use %s: %w", p, err)
		}
	}()
	content, err := readBounded(p.PIN)
	if err != nil {
		return fmt.Errorf("read the PIN: %w", err)
	}
	pin := string(bytes.TrimSpace(content))
	module := pkcs11.New(p.Module)
	if module == nil {
		return fmt.Errorf("%s cannot be loaded as a PKCS #11 library", p.Module)
	}
	defer module.Destroy()
	switch err := module.Initialize(); {
	case err == nil:
		defer module.Finalize() //nolint:errcheck // nothing is lost with it
	case !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		return fmt.Errorf("start its library: %w", err)
	}
	slot, err := p.slot(module)
	if err != nil {
		return err
	}
	session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer module.CloseSession(session) //nolint:errcheck // nothing is lost with it
	if err := module.Login(session, pkcs11.CKU_USER, pin); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return fmt.Errorf("log in with the PIN of %s: %w", p.PIN, err)
	}
	key, err := p.find(module, session)
	if err != nil {
		return err
	}
	return work(token{module, session, key})
}

// slot is where the token is.
func (p PKCS11) slot(module *pkcs11.Ctx) (uint, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list the tokens: %w", err)
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err == nil && info.Label == p.Token {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("%s has no token %q", p.Module, p.Token)
}

// find is the one key that the URI names.
func (p PKCS11) find(module *pkcs11.Ctx, session pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, p.Object),
	}
	if err := module.FindObjectsInit(session, template); err != nil {
		return 0, fmt.Errorf("look for the key: %w", err)
	}
	found, _, err := module.FindObjects(session, 2)
	if err := errors.Join(err, module.FindObjectsFinal(session)); err != nil {
		return 0, fmt.Errorf("look for the key: %w", err)
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("the token has %d AES keys named %q, not one", len(found), p.Object)
	}
	size, err := module.GetAttributeValue(session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil)})
	if err == nil && len(size) == 1 && len(size[0].Value) > 0 && size[0].Value[0] != RootSize {
		return 0, fmt.Errorf("the key %q has %d bits, not %d", p.Object, int(size[0].Value[0])*8, RootSize*8)
	}
	return found[0], nil
}
