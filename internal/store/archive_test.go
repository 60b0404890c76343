package store

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// archiveOf is a backup of some records, of the store with a root key.
func archiveOf(t testing.TB, root []byte, records []archived) []byte {
	t.Helper()
	var out bytes.Buffer
	a, err := newArchive(&out, archiveHeader{Schema: schema, Lineage: "l", Keyring: keyring{Roots: []wrappedRoot{{ID: 1}}}}, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := a.put(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readArchive(archive, root []byte) (records []archived, err error) {
	a, err := openArchive(bytes.NewReader(archive), func(archiveHeader) ([]byte, error) { return root, nil })
	for err == nil {
		var r archived
		if r, err = a.next(); err == nil {
			records = append(records, r)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return records, err
}

func TestArchive(t *testing.T) {
	root := bytes.Repeat([]byte{1}, dataKeySize)
	for name, records := range map[string][]archived{
		"nothing":              nil,
		"one":                  {{"/fairlead/a", 7, []byte("value")}},
		"an empty value":       {{"/fairlead/a", 1 << 60, []byte{}}, {"/fairlead/b", 2, []byte("x")}},
		"just a chunk":         {{"k", 1, make([]byte, chunkSize-1-1-3-1)}},
		"a byte more than one": {{"k", 1, make([]byte, chunkSize-1-1-3)}},
		"many chunks":          {{"/fairlead/a", 1, make([]byte, 5*chunkSize+11)}, {"/fairlead/b", 2, []byte("x")}},
	} {
		read, err := readArchive(archiveOf(t, root, records), root)
		if diff := cmp.Diff(records, read, cmp.AllowUnexported(archived{})); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	if _, err := readArchive(archiveOf(t, root, nil), bytes.Repeat([]byte{2}, dataKeySize)); !errors.Is(err, ErrBackup) {
		t.Errorf("with another root key: %v", err)
	}
}

// FuzzArchive: what is read as a backup is one that was made with the root key. (Each
// process of a fuzzer makes another one, with a salt of its own.)
func FuzzArchive(f *testing.F) {
	root := bytes.Repeat([]byte{1}, dataKeySize)
	records := []archived{{"/fairlead/a", 7, []byte("value")}, {"/fairlead/b", 8, bytes.Repeat([]byte("b"), chunkSize)}}
	whole := archiveOf(f, root, records)
	for _, seed := range [][]byte{whole, whole[:len(whole)-1], append(bytes.Clone(whole), 0), whole[:30], []byte(archiveMagic), []byte(archiveMagic + "\xff\xff\xff\xff"), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		read, err := readArchive(sent, root)
		if bytes.Equal(sent, whole) && err != nil || err != nil && !errors.Is(err, ErrBackup) {
			t.Fatalf("%d bytes: %v", len(sent), err)
		}
		if diff := cmp.Diff(records, read, cmp.AllowUnexported(archived{})); err == nil && diff != "" {
			t.Fatalf("%d bytes are read as another backup:\n%s", len(sent), diff)
		}
	})
}

// FuzzSealed: what was not sealed does not open, and does not when it was sealed anew.
func FuzzSealed(f *testing.F) {
	seal, err := newSealer(1, bytes.Repeat([]byte{1}, dataKeySize))
	if err != nil {
		f.Fatal(err)
	}
	next, err := newRootKeys(0, 2, map[uint32][]byte{1: bytes.Repeat([]byte{1}, dataKeySize), 2: bytes.Repeat([]byte{2}, dataKeySize)})
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := seal.seal("/key", "purpose", []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{sealed, sealed[:len(sealed)-1], sealed[:6], {sealVersion, 0, 0, 0, 1, 255}, {sealVersion}, nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		opened, err := seal.open("/key", "purpose", sent)
		if bytes.Equal(sent, sealed) && err != nil || err != nil && (!errors.Is(err, errUnseal) || opened != nil) || err == nil && string(opened) != "secret" {
			t.Fatalf("%x opens as %q, %v", sent, opened, err)
		}
		anew, changed, wrapErr := next.rewrap("/key", sent)
		if wrapErr != nil || !changed {
			return
		}
		// The body is looked at when it is opened.
		if again, againErr := next.open("/key", "purpose", anew); (err == nil) != (againErr == nil) || !bytes.Equal(again, opened) {
			t.Fatalf("%x sealed anew opens as %q, %v", sent, again, againErr)
		}
	})
}
