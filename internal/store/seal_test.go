package store

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func TestSeal(t *testing.T) {
	first, err := newSealer(1, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	second, err := newSealer(1, bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("wJalrXUtnFEMI")
	sealed, err := first.seal("/key/a", "access key", secret)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := first.open("/key/a", "access key", sealed); err != nil || !bytes.Equal(opened, secret) {
		t.Fatalf("opens as %q, %v", opened, err)
	}
	if bytes.Contains(sealed, secret) {
		t.Error("the secret is there in clear")
	}
	again, err := first.seal("/key/a", "access key", secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(sealed, again) {
		t.Error("the same secret seals twice to the same bytes")
	}
	bodyAt := len(sealedHead(1, "access key", 0)) + wrappedLength
	// The wrapped data key of one value with the body of another.
	mixed := slices.Concat(sealed[:bodyAt], again[bodyAt:])

	for _, test := range []struct {
		name         string
		by           *sealer
		key, purpose string
		sealed       []byte
	}{
		{"other key-encryption key", second, "/key/a", "access key", sealed},
		{"moved to another key", first, "/key/b", "access key", sealed},
		{"used for another purpose", first, "/key/a", "private key", sealed},
		{"put together from two", first, "/key/a", "access key", mixed},
		{"cut short", first, "/key/a", "access key", sealed[:len(sealed)-1]},
		{"only the data key", first, "/key/a", "access key", sealed[:bodyAt]},
		{"empty", first, "/key/a", "access key", nil},
		{"longer", first, "/key/a", "access key", append(slices.Clone(sealed), 0)},
		{"the boundary of purpose and key moved", first, "key\x00/key/a", "access ", sealed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if opened, err := test.by.open(test.key, test.purpose, test.sealed); !errors.Is(err, errUnseal) || opened != nil {
				t.Errorf("opens as %q, %v", opened, err)
			}
		})
	}
	for i := range sealed {
		altered := slices.Clone(sealed)
		altered[i] ^= 1
		if _, err := first.open("/key/a", "access key", altered); !errors.Is(err, errUnseal) {
			t.Errorf("byte %d altered: %v", i, err)
		}
	}
	if _, err := newSealer(1, make([]byte, 16)); err == nil {
		t.Error("a key of 128 bits is taken")
	}
}
