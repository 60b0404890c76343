package store

import (
	"errors"
	"testing"

	"github.com/fairlead/fairlead/internal/mesh"
)

// makeNode is what a Create does, as far as the store is concerned.
func makeNode(id mesh.ID) func(tx *Tx) error {
	return func(tx *Tx) error {
		there, err := tx.Exists(demo, meshID)
		if err != nil {
			return err
		}
		if !there {
			return errors.New("there is no mesh")
		}
		if _, err := Get[nodeSpec](tx, demo, id); err == nil {
			return errors.New("it is there already")
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if ok, err := tx.Below(demo, mesh.KindVirtualNode, "", 10_000); err != nil || !ok {
			return errors.Join(err, errors.New("there are too many"))
		}
		return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: id, Version: 1, Spec: &nodeSpec{}})
	}
}

// TestForetold: a Create whose mesh the cache knows reads nothing.
func TestForetold(t *testing.T) {
	s := open(t, Config{})
	if err := s.WaitFor(bounded(t), put(t, s, demo, meshID, meshSpec{})); err != nil {
		t.Fatal(err)
	}
	runs, foretold := 0, false
	if _, err := s.Write(bounded(t), func(tx *Tx) error {
		runs++
		foretold = tx.foretold
		return makeNode(nodeID("a"))(tx)
	}); err != nil || runs != 1 || !foretold {
		t.Errorf("%d runs, the last foretold: %t, %v", runs, foretold, err)
	}
}

// TestForetoldWrongly: what the cache does not know yet is a condition all the
// same, and what a caller is told is founded on reads.
func TestForetoldWrongly(t *testing.T) {
	deleteMesh := func(t *testing.T, s *Store) { remove[meshSpec](t, s, demo, meshID) }
	for _, test := range []struct {
		name    string
		after   func(t *testing.T, s *Store) // the cache was asked
		refuses string
	}{
		{"the mesh is deleted", deleteMesh, "there is no mesh"},
		{"the mesh is deleted and made again", func(t *testing.T, s *Store) {
			deleteMesh(t, s)
			put(t, s, demo, meshID, meshSpec{})
		}, ""},
		{"another makes the node", func(t *testing.T, s *Store) { put(t, s, demo, nodeID("a"), nodeSpec{}) }, "it is there already"},
		{"another makes another node", func(t *testing.T, s *Store) { put(t, s, demo, nodeID("b"), nodeSpec{}) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, Config{})
			if err := s.WaitFor(bounded(t), put(t, s, demo, meshID, meshSpec{})); err != nil {
				t.Fatal(err)
			}
			tx := s.foretell(bounded(t))
			if err := makeNode(nodeID("a"))(tx); err != nil {
				t.Fatal(err)
			}
			test.after(t, s)
			_, ok, err := tx.commit()
			if err != nil || ok != (test.refuses == "") {
				t.Fatalf("written: %t, %v", ok, err)
			}
			if ok {
				return
			}
			if _, err := s.Write(bounded(t), makeNode(nodeID("a"))); err == nil || err.Error() != test.refuses {
				t.Errorf("got %v, want %s", err, test.refuses)
			}
		})
	}
}

// TestRefusalsAreFoundedOnReads: a caller that was answered is not told of a
// past that the cache still believes in.
func TestRefusalsAreFoundedOnReads(t *testing.T) {
	s := open(t, Config{UnsafeNoFsync: true})
	for range 50 {
		put(t, s, demo, meshID, meshSpec{})
		if _, err := s.Write(bounded(t), makeNode(nodeID("a"))); err != nil {
			t.Fatalf("right after the mesh was made: %v", err)
		}
		remove[nodeSpec](t, s, demo, nodeID("a"))
		if _, err := s.Write(bounded(t), makeNode(nodeID("a"))); err != nil {
			t.Fatalf("right after the node was deleted: %v", err)
		}
		remove[nodeSpec](t, s, demo, nodeID("a"))
		remove[meshSpec](t, s, demo, meshID)
		if _, err := s.Write(bounded(t), makeNode(nodeID("a"))); err == nil {
			t.Fatal("a node was made right after its mesh was deleted")
		}
	}
}
