package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type thing struct {
	Name string `json:"name"`
	N    int    `json:"n,omitzero"`
}

func putThing(t *testing.T, s *Store, at Place, v *thing, secret []byte) int64 {
	t.Helper()
	revision, err := s.Write(t.Context(), func(tx *Tx) error {
		if _, err := GetObject[thing](tx, at); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := PutObject(tx, at, v); err != nil {
			return err
		}
		if secret == nil {
			return nil
		}
		return tx.PutSecret(at, secret)
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// TestObjects: what is put comes back, object and secret in one transaction,
// and both go together.
func TestObjects(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	at := Place{"thing", "000000000000", "a/b c%"}
	revision := putThing(t, s, at, &thing{"x", 1}, []byte("hunter2"))
	read := func() (o *Object[thing], secret []byte, err error) {
		_, err = s.Read(t.Context(), func(tx *Tx) error {
			if o, err = GetObject[thing](tx, at); err != nil {
				return err
			}
			secret, err = tx.Secret(at)
			return err
		})
		return o, secret, err
	}
	got, secret, err := read()
	if diff := cmp.Diff(&Object[thing]{at, &thing{"x", 1}, revision}, got); diff != "" || string(secret) != "hunter2" || err != nil {
		t.Errorf("secret %q, %v (-want +got):\n%s", secret, err, diff)
	}
	if _, err := s.Write(t.Context(), func(tx *Tx) error {
		if _, err := GetObject[thing](tx, at); err != nil {
			return err
		}
		return tx.DeleteObject(at)
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the deletion: %v", err)
	}
	all, err := s.client.Get(t.Context(), keyRoot, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if strings.HasPrefix(string(kv.Key), dirObject) || strings.HasPrefix(string(kv.Key), dirSecret) {
			t.Errorf("%s is left", kv.Key)
		}
	}
}

func TestObjectsMustBeReadBeforeTheyAreWritten(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	at := Place{"thing", "a"}
	for name, write := range map[string]func(tx *Tx) error{
		"put":        func(tx *Tx) error { return PutObject(tx, at, &thing{}) },
		"delete":     func(tx *Tx) error { return tx.DeleteObject(at) },
		"put secret": func(tx *Tx) error { return tx.PutSecret(at, []byte("x")) },
		"nowhere":    func(tx *Tx) error { return PutObject(tx, nil, &thing{}) },
		"empty part": func(tx *Tx) error { return PutObject(tx, Place{"thing", ""}, &thing{}) },
	} {
		if _, err := s.Write(t.Context(), write); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestObjectsAreConditions: what was read must still be true at the write.
func TestObjectsAreConditions(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	at, other := Place{"thing", "a"}, Place{"thing", "b"}
	putThing(t, s, at, &thing{N: 1}, nil)
	attempts := 0
	if _, err := s.Write(t.Context(), func(tx *Tx) error {
		o, err := GetObject[thing](tx, at)
		if err != nil {
			return err
		}
		if _, err := GetObject[thing](tx, other); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("the other: %w", err)
		}
		if attempts++; attempts == 1 {
			putThing(t, s, at, &thing{N: 2}, nil)
		}
		return PutObject(tx, other, &thing{N: o.Value.N})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), func(tx *Tx) error {
		o, err := GetObject[thing](tx, other)
		if err == nil && (o.Value.N != 2 || attempts != 2) {
			t.Errorf("%d after %d attempts, want the newest after two", o.Value.N, attempts)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestListObjects(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	for _, name := range []string{"c", "a", "b"} {
		putThing(t, s, Place{"thing", "x", name}, &thing{Name: name}, nil)
	}
	putThing(t, s, Place{"thing", "xy", "z"}, &thing{Name: "not below"}, nil)
	var pages [][]string
	var behind Place
	for range 3 {
		if _, err := s.Read(t.Context(), func(tx *Tx) error {
			page, err := ListObjects[thing](tx, Place{"thing", "x"}, behind, 2)
			var names []string
			for _, o := range page {
				names, behind = append(names, o.Value.Name), o.Place
			}
			pages = append(pages, names)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([][]string{{"a", "b"}, {"c"}, nil}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// TestSecretsAreBoundToTheirPlace: whoever may write to etcd cannot give one
// object the secret of another.
func TestSecretsAreBoundToTheirPlace(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	mine, theirs := Place{"thing", "mine"}, Place{"thing", "theirs"}
	putThing(t, s, mine, &thing{}, []byte("mine"))
	putThing(t, s, theirs, &thing{}, []byte("theirs"))
	stolen, err := s.client.Get(t.Context(), dirSecret+"thing/theirs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), dirSecret+"thing/mine", string(stolen.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), func(tx *Tx) error {
		_, err := tx.Secret(mine)
		return err
	}); !errors.Is(err, errUnseal) {
		t.Errorf("got %v, want %v", err, errUnseal)
	}
}

// TestWritesWithoutReads: what is expected of a place, or that it is empty, is a
// condition though nothing was read.
func TestWritesWithoutReads(t *testing.T) {
	s := open(t, Config{DataDir: t.TempDir()})
	known, made := Place{"thing", "known"}, Place{"thing", "made"}
	old := putThing(t, s, known, &thing{N: 1}, nil)
	putThing(t, s, known, &thing{N: 2}, nil)
	attempts := 0
	if _, err := s.Write(t.Context(), func(tx *Tx) error {
		if attempts++; attempts == 1 {
			if err := tx.Expect(known, old); err != nil {
				return err
			}
		} else if o, err := GetObject[thing](tx, known); err != nil || o.Value.N != 2 {
			return fmt.Errorf("read again: %v, %w", o, err)
		}
		return MakeObject(tx, made, &thing{N: attempts})
	}); err != nil || attempts != 2 {
		t.Errorf("%v after %d attempts, want two", err, attempts)
	}
	if _, err := s.Write(t.Context(), func(tx *Tx) error { return MakeObject(tx, made, &thing{N: 9}) }); !errors.Is(err, ErrConflict) {
		t.Errorf("made twice: %v, want %v", err, ErrConflict)
	}
	if _, err := s.Read(t.Context(), func(tx *Tx) error {
		o, err := GetObject[thing](tx, made)
		if err == nil && o.Value.N != 2 {
			t.Errorf("it was made as %d", o.Value.N)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestReadAhead: what is read ahead needs no further request, is of one revision,
// and is a condition like what GetObject and Secret read; it may be more than one
// request of an external etcd takes.
func TestReadAhead(t *testing.T) {
	endpoint, stop := external(t, 0)
	s := open(t, Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)})
	var there, all []Place
	for i := range 2*externalKeys + 9 {
		at := Place{"thing", fmt.Sprint(i)}
		if all = append(all, at); i%2 == 0 {
			there = append(there, at)
			putThing(t, s, at, &thing{"x", i}, []byte(fmt.Sprint("secret ", i)))
		}
	}
	for what, change := range map[string]Place{"what is there": there[0], "what is not": all[1]} {
		runs := 0
		_, err := s.Write(t.Context(), func(tx *Tx) error {
			if err := tx.ReadAhead(all, there); err != nil {
				return err // the first attempt reads nothing
			}
			if runs++; runs == 1 {
				putThing(t, s, change, &thing{"changed", 0}, nil)
			}
			at := Place{"made", what}
			if _, err := GetObject[thing](tx, at); !errors.Is(err, ErrNotFound) {
				return err
			}
			return PutObject(tx, at, &thing{"y", 1})
		})
		// There are more conditions than such an etcd takes: it says so.
		if !errors.Is(err, ErrTooLarge) || runs != 1 {
			t.Errorf("%s: %v after %d runs", what, err, runs)
		}
		runs = 0
		if _, err = s.Write(t.Context(), func(tx *Tx) error {
			if err := tx.ReadAhead([]Place{change, all[3]}, there[3:5]); err != nil {
				return err
			}
			if runs++; runs == 1 {
				putThing(t, s, change, &thing{"changed again", 0}, nil)
			}
			o, err := GetObject[thing](tx, change)
			if err != nil {
				return err
			}
			if runs == 2 && o.Value.Name != "changed again" {
				t.Errorf("%s: the second run has read %+v", what, o.Value)
			}
			return PutObject(tx, change, &thing{"last", 0})
		}); err != nil || runs != 2 {
			t.Errorf("%s, changed meanwhile: %v after %d runs", what, err, runs)
		}
	}
	if _, err := s.Read(t.Context(), func(tx *Tx) error {
		if err := tx.ReadAhead(append(all, Place{"thing", "none"}), append(there, all[3])); err != nil {
			return err
		}
		stop() // nothing is asked for any more
		for i, at := range all[2:] {
			o, err := GetObject[thing](tx, at)
			if i%2 == 1 {
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("%v: %v, %v", at, o, err)
				}
				continue
			}
			secret, secretErr := tx.Secret(at)
			if err != nil || secretErr != nil || string(secret) != "secret "+at[1] {
				t.Errorf("%v: %v, secret %q, %v", at, err, secret, secretErr)
			}
		}
		if _, err := tx.Secret(all[3]); !errors.Is(err, ErrNotFound) {
			t.Errorf("a secret that is not there: %v", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := (&Tx{}).ReadAhead([]Place{{"thing", ""}}, nil); err == nil || !strings.Contains(err.Error(), "empty part") {
		t.Errorf("an empty part: %v", err)
	}
}
