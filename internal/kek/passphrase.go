package kek

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// passphraseVariable is the environment variable of a passphrase.
const passphraseVariable = "FAIRLEAD_KEK_PASSPHRASE"

// minPassphrase is how many characters a passphrase must have to be taken for
// something new.
const minPassphrase = 12

// Argon2id are the parameters that a key was made with from a passphrase.
type Argon2id struct {
	Time    uint32 `json:"time,omitzero"`
	Memory  uint32 `json:"memoryKiB,omitzero"`
	Threads uint8  `json:"threads,omitzero"`
	Salt    []byte `json:"salt,omitzero"`
}

// check bounds what somebody who may write to the store could have us compute.
func (a Argon2id) check() error {
	if a.Time < 1 || a.Time > 16 || a.Memory < 8*uint32(a.Threads) || a.Memory > 1<<20 || a.Threads < 1 || a.Threads > 16 || len(a.Salt) < 16 || len(a.Salt) > 64 {
		return fmt.Errorf("the parameters of Argon2id in the store are out of bounds: %w", ErrWrong)
	}
	return nil
}

func (a Argon2id) key(passphrase []byte) []byte {
	return argon2.IDKey(passphrase, a.Salt, a.Time, a.Memory, a.Threads, RootSize)
}

// Passphrase is a key-encryption key that is made from a passphrase by Argon2id.
type Passphrase struct {
	source string // a file; "-": the terminal; empty: the environment

	typed sync.Mutex
	known []byte // what was typed: nobody is asked for each use
	twice bool   // known was typed twice, as a new one must be
}

func newPassphrase(source string) *Passphrase { return &Passphrase{source: source} }

// String implements Key.
func (p *Passphrase) String() string { return providerPassphrase + ":" + p.source }

// GoString keeps what was typed out of %#v.
func (p *Passphrase) GoString() string { return p.String() }

// File is where the passphrase is kept; empty: in no file.
func (p *Passphrase) File() string {
	if p.source == "-" {
		return ""
	}
	return p.source
}

// Wrap implements Key. The parameters are the second that RFC 9106, 4
// recommends; the store keeps them.
func (p *Passphrase) Wrap(_ context.Context, root []byte, lineage string) (Wrapped, error) {
	passphrase, err := p.read(true)
	if err != nil {
		return Wrapped{}, err
	}
	if utf8.RuneCount(passphrase) < minPassphrase {
		return Wrapped{}, fmt.Errorf("the passphrase of %s is too short: take %d characters or more", p, minPassphrase)
	}
	a := Argon2id{Time: 3, Memory: 64 << 10, Threads: 4, Salt: make([]byte, 16)}
	rand.Read(a.Salt) // never fails
	blob, err := wrapAES(a.key(passphrase), root, providerPassphrase, lineage)
	return Wrapped{Provider: providerPassphrase, Argon2id: a, Blob: blob}, err
}

// Unwrap implements Key.
func (p *Passphrase) Unwrap(_ context.Context, w Wrapped, lineage string) ([]byte, error) {
	if err := w.of(providerPassphrase); err != nil {
		return nil, err
	}
	if err := w.Argon2id.check(); err != nil {
		return nil, err
	}
	passphrase, err := p.read(false)
	if err != nil {
		return nil, err
	}
	return unwrapAES(w.Argon2id.key(passphrase), w, lineage)
}

// read is the passphrase. A new one that is typed is asked for twice.
func (p *Passphrase) read(isNew bool) ([]byte, error) {
	var content []byte
	var err error
	switch p.source {
	case "":
		content = []byte(os.Getenv(passphraseVariable))
		if len(content) == 0 {
			return nil, fmt.Errorf("read passphrase: %s is not set: set it, or name a file, passphrase:PATH", passphraseVariable)
		}
	case "-":
		content, err = p.ask(isNew)
	default:
		content, err = readBounded(p.source)
	}
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("read passphrase: %s is empty", p)
	}
	return line, nil
}

func (p *Passphrase) ask(isNew bool) ([]byte, error) {
	p.typed.Lock()
	defer p.typed.Unlock()
	if p.known == nil {
		typed, err := askTerminal("Passphrase of the key-encryption key: ")
		if err != nil {
			return nil, err
		}
		p.known = typed
	}
	if isNew && !p.twice {
		again, err := askTerminal("The new passphrase again: ")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(p.known, again) {
			return nil, errors.New("the two that were typed differ")
		}
		p.twice = true
	}
	return p.known, nil
}
