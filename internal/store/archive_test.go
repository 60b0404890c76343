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

// FuzzArchive: what is not the backup, byte for byte, is none.
func FuzzArchive(f *testing.F) {
	root := bytes.Repeat([]byte{1}, dataKeySize)
	whole := archiveOf(f, root, []archived{{"/fairlead/a", 7, []byte("value")}, {"/fairlead/b", 8, bytes.Repeat([]byte("b"), chunkSize)}})
	for _, seed := range [][]byte{whole, whole[:len(whole)-1], append(bytes.Clone(whole), 0), whole[:30], []byte(archiveMagic), []byte(archiveMagic + "\xff\xff\xff\xff"), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		_, err := readArchive(sent, root)
		if good := bytes.Equal(sent, whole); good && err != nil || !good && !errors.Is(err, ErrBackup) {
			t.Fatalf("%d bytes: %v", len(sent), err)
		}
	})
}

// FuzzSealed: what was not sealed neither opens nor is sealed anew.
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
		good := bytes.Equal(sent, sealed)
		if opened, err := seal.open("/key", "purpose", sent); good != (err == nil) || !good && (!errors.Is(err, errUnseal) || opened != nil) {
			t.Fatalf("%x opens as %q, %v", sent, opened, err)
		}
		anew, changed, err := next.rewrap("/key", sent)
		if err == nil && changed {
			// The body is looked at when it is opened.
			if opened, err := next.open("/key", "purpose", anew); good != (err == nil) {
				t.Fatalf("%x sealed anew opens as %q, %v", sent, opened, err)
			}
		}
	})
}
