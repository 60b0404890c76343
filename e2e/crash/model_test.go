package crash

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is what a client asks the API to do with one virtual node.
type operation struct {
	verb  string // create, update, delete or describe
	name  string
	token string // client token of creates and updates
	value string // what creates and updates set: the DNS hostname
}

// answer is what came back. The zero answer is none: the connection broke, or
// the server said that it does not know.
type answer struct {
	what    string // ok, not found or conflict
	version int64
	value   string
	uid     string
}

// node is a virtual node as App Mesh's semantics have it: one state of the model.
type node struct {
	exists  bool
	version int64
	value   string
	uid     string // empty: made by a request that nobody saw the answer of
	tokens  string // of the creation and the newest updates, each "token=verb value\n"
}

// remembered is how many tokens a virtual node keeps: that of its creation and
// the newest of its updates.
const remembered = 9

func (n node) known(op operation) (used, same bool) {
	for line := range strings.Lines(n.tokens) {
		token, request, _ := strings.Cut(strings.TrimSpace(line), "=")
		if token == op.token {
			return true, request == op.verb+" "+op.value
		}
	}
	return false, false
}

func (n node) remember(op operation) string {
	kept := strings.SplitAfter(n.tokens+op.token+"="+op.verb+" "+op.value+"\n", "\n")
	kept = kept[:len(kept)-1] // behind the last line is nothing
	if len(kept) > remembered {
		kept = append(kept[:1:1], kept[len(kept)-remembered+1:]...)
	}
	return strings.Join(kept, "")
}

// apply does one operation: the node after it, and what must be answered.
func (n node) apply(op operation) (node, answer) {
	present := answer{"ok", n.version, n.value, n.uid}
	used, same := n.known(op)
	switch {
	case op.verb == "create" && !n.exists:
		made := node{exists: true, version: 1, value: op.value}
		made.tokens = made.remember(op)
		return made, answer{"ok", 1, op.value, ""}
	case !n.exists:
		return n, answer{what: "not found"}
	case op.verb == "describe":
		return n, present
	case op.verb == "delete":
		present.version++ // App Mesh counts the deletion
		return node{}, present
	case used && same:
		return n, present // the same request again changes nothing
	case used || op.verb == "create":
		return n, answer{what: "conflict"}
	}
	next := node{exists: true, version: n.version + 1, value: op.value, uid: n.uid, tokens: n.remember(op)}
	return next, answer{"ok", next.version, next.value, next.uid}
}

// step says which nodes are possible after an operation with an answer: none if
// the answer is wrong. An operation without an answer was done or not.
func (n node) step(op operation, got answer) []node {
	next, want := n.apply(op)
	switch {
	case got.what == "" && next == n:
		return []node{n}
	case got.what == "":
		return []node{n, next}
	case want.what == "ok" && want.uid == "" && got.uid != "":
		// The first answer that shows the id of this node.
		want.uid = got.uid
		if next.exists {
			next.uid = got.uid
		}
	}
	if got != want {
		return nil
	}
	return []node{next}
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{node{}} },
		Step: func(state, input, output any) []any {
			var next []any
			for _, n := range state.(node).step(input.(operation), output.(answer)) {
				next = append(next, n)
			}
			return next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
	return m.ToModel()
}

// linearizable says whether there is an order of the operations that explains
// all answers. Names are independent of each other.
func linearizable(history []porcupine.Operation) error {
	byName := map[string][]porcupine.Operation{}
	for _, op := range history {
		name := op.Input.(operation).name
		byName[name] = append(byName[name], op)
	}
	for name, part := range byName {
		switch result := porcupine.CheckOperationsTimeout(model(), part, time.Minute); result {
		case porcupine.Ok:
		case porcupine.Illegal:
			return fmt.Errorf("the history of %s, %d operations, is not linearizable", name, len(part))
		default:
			return fmt.Errorf("the history of %s, %d operations: checked for a minute without an answer", name, len(part))
		}
	}
	return nil
}

// One line is one operation: when it was called and answered, by the position
// of "(" and ")"; what; the answer. No answer is "?".
func TestModel(t *testing.T) {
	for _, test := range []struct {
		about   string
		history string
		want    bool
	}{
		{"an acknowledged create is read", `
			()     create a tok1 x → ok 1 x id1
			  ()   describe a → ok 1 x id1`, true},
		{"an acknowledged create is lost", `
			()     create a tok1 x → ok 1 x id1
			  ()   describe a → not-found`, false},
		{"an acknowledged update is lost", `
			()     create a tok1 x → ok 1 x id1
			  ()   update a tok2 y → ok 2 y id1
			    () describe a → ok 1 x id1`, false},
		{"a create without an answer was done", `
			()     create a tok1 x → ?
			  ()   describe a → ok 1 x id1`, true},
		{"a create without an answer was not done", `
			()     create a tok1 x → ?
			  ()   describe a → not-found`, true},
		{"it cannot be done after the server has died", `
			()     create a tok1 x → ?
			  ()   describe a → not-found
			    () describe a → ok 1 x id1`, false},
		{"the same create again is the same node", `
			()     create a tok1 x → ?
			  ()   create a tok1 x → ok 1 x id1
			    () update a tok2 y → ok 2 y id1`, true},
		{"an update was done twice", `
			()       create a tok1 x → ok 1 x id1
			  ()     update a tok2 y → ?
			    ()   update a tok2 y → ok 3 y id1`, false},
		{"a token is used for another request", `
			()       create a tok1 x → ok 1 x id1
			  ()     update a tok2 y → ok 2 y id1
			    ()   update a tok2 z → conflict
			      () describe a → ok 2 y id1`, true},
		{"a deleted node comes back", `
			()       create a tok1 x → ok 1 x id1
			  ()     delete a → ok 2 x id1
			    ()   describe a → ok 1 x id1`, false},
		{"another node under the same id", `
			()       create a tok1 x → ok 1 x id1
			  ()     delete a → ok 2 x id1
			    ()   create a tok2 x → ok 1 x id2
			      () describe a → ok 1 x id1`, false},
		{"two updates at the same time, in either order", `
			()       create a tok1 x → ok 1 x id1
			  (  )   update a tok2 y → ok 3 y id1
			  (  )   update a tok3 z → ok 2 z id1
			      () describe a → ok 3 y id1`, true},
	} {
		if err := linearizable(parseHistory(t, test.history)); (err == nil) != test.want {
			t.Errorf("%s: %v", test.about, err)
		}
	}
}

func parseHistory(t *testing.T, text string) []porcupine.Operation {
	t.Helper()
	var history []porcupine.Operation
	for client, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		line = strings.TrimPrefix(line, "\t\t\t")
		opened, closed := strings.Index(line, "("), strings.Index(line, ")")
		asked, answered, ok := strings.Cut(line[closed+1:], "→")
		in, out := append(strings.Fields(asked), "", ""), append(strings.Fields(answered), "", "", "")
		if !ok || opened < 0 || closed < opened {
			t.Fatalf("cannot read %q", line)
		}
		op := porcupine.Operation{
			ClientId: client, Call: int64(opened), Return: int64(closed),
			Input: operation{in[0], in[1], in[2], in[3]}, Output: answer{},
		}
		if out[0] != "?" {
			a := answer{what: strings.ReplaceAll(out[0], "-", " "), value: out[2], uid: out[3]}
			if out[1] != "" {
				if _, err := fmt.Sscan(out[1], &a.version); err != nil {
					t.Fatal(err)
				}
			}
			op.Output = a
		}
		history = append(history, op)
	}
	return history
}
