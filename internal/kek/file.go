package kek

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// File is a key-encryption key in a file: 32 bytes in hex or base64. It is read
// anew at each use, so that a file that was replaced counts at once.
type File struct {
	Path string
}

// maxFile bounds what is read of a file, in bytes.
const maxFile = 4 << 10

// NewFileContent is a new random key-encryption key as a file has it.
func NewFileContent() []byte {
	key := make([]byte, RootSize)
	rand.Read(key) // never fails
	return append(hex.AppendEncode(nil, key), '\n')
}

// String implements Key.
func (f File) String() string { return providerFile + ":" + f.Path }

// Wrap implements Key.
func (f File) Wrap(_ context.Context, root []byte, lineage string) (Wrapped, error) {
	key, err := f.Read()
	if err != nil {
		return Wrapped{}, err
	}
	blob, err := wrapAES(key, root, providerFile, lineage)
	return Wrapped{Provider: providerFile, Blob: blob}, err
}

// Unwrap implements Key.
func (f File) Unwrap(_ context.Context, w Wrapped, lineage string) ([]byte, error) {
	if err := w.of(providerFile); err != nil {
		return nil, err
	}
	key, err := f.Read()
	if err != nil {
		return nil, err
	}
	return unwrapAES(key, w, lineage)
}

// Read is the key itself, which must not be logged.
func (f File) Read() ([]byte, error) {
	content, err := readBounded(f.Path)
	if err != nil {
		return nil, fmt.Errorf("read key-encryption key: %w", err)
	}
	text := string(bytes.TrimSpace(content))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(text); err == nil && len(key) == RootSize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("read key-encryption key: %s does not hold %d bytes in hex or base64", f.Path, RootSize)
}

// readBounded reads a little more than there can be, of a file or of a pipe from
// whatever keeps the secret.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
