package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// Bounds on what is read: a file, its nesting, and its values once the aliases
// of YAML are written out.
const (
	MaxBytes  = 16 << 20
	maxDepth  = 100
	maxValues = 1 << 20
)

// kind is what a value of a source document is.
type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	list
	object
	// unresolved is a value that the source computes from what is not in it. The
	// text says what is missing.
	unresolved
)

func (k kind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "a list", "an object", "a value that is not known"}[k]
}

// node is a value of a source document, whatever its language. Scalars keep
// the text in which they were written.
type node struct {
	kind    kind
	text    string
	line    int // from 1
	items   []*node
	members []member
	index   map[string]*node // members by name, of an object with many; made when needed
}

type member struct {
	name  string
	value *node
}

// get is the member of an object, or nil.
func (n *node) get(name string) *node {
	const many = 32
	if n == nil {
		return nil
	}
	if len(n.members) > many {
		if len(n.index) != len(n.members) {
			n.index = make(map[string]*node, len(n.members))
			for _, m := range n.members {
				n.index[m.name] = m.value
			}
		}
		return n.index[name]
	}
	for i := range n.members {
		if n.members[i].name == name {
			return n.members[i].value
		}
	}
	return nil
}

// at follows members one below the other.
func (n *node) at(names ...string) *node {
	for _, name := range names {
		n = n.get(name)
	}
	return n
}

// str is the text of a scalar, or "".
func (n *node) str() string {
	if n == nil || n.kind == list || n.kind == object || n.kind == unresolved || n.kind == null {
		return ""
	}
	return n.text
}

// empty says whether there is nothing in a value.
func (n *node) empty() bool {
	return n == nil || n.kind == null || (n.kind == list || n.kind == object) && len(n.items)+len(n.members) == 0
}

func newText(s string, line int) *node { return &node{kind: text, text: s, line: line} }

// parse reads the JSON or YAML documents of a file.
func parse(data []byte) ([]*node, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	start := bytes.TrimLeft(data, " \t\r\n")
	if len(start) == 0 {
		return nil, errors.New("the file is empty")
	}
	r := reader{}
	if start[0] == '{' || start[0] == '[' {
		return r.json(data)
	}
	return r.yaml(data)
}

// reader counts what it has read.
type reader struct {
	values int

	in     *jsontext.Decoder
	data   []byte
	offset int // the lines of data up to here are counted
	line   int
}

// count refuses too much of anything.
func (r *reader) count(depth, line int) error {
	r.values++
	if r.values > maxValues {
		return fmt.Errorf("line %d: the file has more than %d values", line, maxValues)
	}
	if depth > maxDepth {
		return fmt.Errorf("line %d: values are nested more than %d levels deep", line, maxDepth)
	}
	return nil
}

func (r *reader) json(data []byte) ([]*node, error) {
	r.in, r.data, r.line = jsontext.NewDecoder(bytes.NewReader(data)), data, 1
	var documents []*node
	for {
		n, err := r.jsonValue(0)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, n)
	}
}

// jsonLine is the line up to which the decoder has read.
func (r *reader) jsonLine() int {
	to := min(int(r.in.InputOffset()), len(r.data))
	r.line += bytes.Count(r.data[r.offset:to], []byte("\n"))
	r.offset = to
	return r.line
}

func (r *reader) token() (jsontext.Token, error) {
	t, err := r.in.ReadToken()
	if err != nil && !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("line %d: not valid JSON: %w", r.jsonLine(), err)
	}
	return t, err
}

func (r *reader) jsonValue(depth int) (*node, error) {
	t, err := r.token()
	if err != nil {
		return nil, err
	}
	// The token is only good until the next one is read.
	n := &node{line: r.jsonLine(), text: t.String()}
	if err := r.count(depth, n.line); err != nil {
		return nil, err
	}
	switch t.Kind() {
	case 'n':
		n.kind = null
	case 't', 'f':
		n.kind = boolean
	case '0':
		n.kind = number
	case '"':
		n.kind = text
	case '[':
		n.kind, n.text = list, ""
		for r.in.PeekKind() != ']' {
			item, err := r.jsonValue(depth + 1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		_, err = r.token()
	case '{':
		n.kind, n.text = object, ""
		for r.in.PeekKind() != '}' {
			name, err := r.token()
			if err != nil {
				return nil, err
			}
			m := member{name: name.String()}
			if m.value, err = r.jsonValue(depth + 1); err != nil {
				return nil, err
			}
			n.members = append(n.members, m)
		}
		_, err = r.token()
	}
	return n, err
}

func (r *reader) yaml(data []byte) ([]*node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var documents []*node
	for {
		var y yaml.Node
		err := decoder.Decode(&y)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("not valid YAML: %w", err)
		}
		n, err := r.yamlValue(&y, 0)
		if err != nil {
			return nil, err
		}
		if n.kind != null { // as between two lines of ---
			documents = append(documents, n)
		}
	}
}

func (r *reader) yamlValue(y *yaml.Node, depth int) (*node, error) {
	if err := r.count(depth, y.Line); err != nil {
		return nil, err
	}
	n := &node{line: y.Line, text: y.Value}
	var err error
	switch y.Kind {
	case yaml.AliasNode:
		return r.yamlValue(y.Alias, depth+1)
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return n, nil
		}
		return r.yamlValue(y.Content[0], depth)
	case yaml.SequenceNode:
		n.kind = list
		for _, item := range y.Content {
			value, err := r.yamlValue(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, value)
		}
	case yaml.MappingNode:
		n.kind = object
		err = r.yamlMembers(n, y, depth)
	case yaml.ScalarNode:
		if !utf8.ValidString(y.Value) {
			return nil, fmt.Errorf("line %d: a string is not valid UTF-8", y.Line)
		}
		n.kind = scalarKind(y)
		if n.kind == boolean {
			n.text = strings.ToLower(n.text)
		}
	}
	return function(n, y.Tag), err
}

func (r *reader) yamlMembers(n *node, y *yaml.Node, depth int) error {
	seen := make(map[string]bool, len(y.Content)/2)
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: a key must be a string", key.Line)
		}
		value, err := r.yamlValue(y.Content[i+1], depth+1)
		switch {
		case err != nil:
			return err
		case key.ShortTag() == "!!merge":
			merges = append(merges, value)
			continue
		case seen[key.Value]:
			return fmt.Errorf("line %d: %q is given twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		n.members = append(n.members, member{key.Value, value})
	}
	for len(merges) > 0 { // <<: what is not given itself
		merged := merges[0]
		merges = append(merges[1:len(merges):len(merges)], merged.items...)
		if merged.kind != object && merged.kind != list {
			return fmt.Errorf("line %d: << must be followed by a mapping, or a list of them", merged.line)
		}
		for _, m := range merged.members {
			if !seen[m.name] {
				seen[m.name] = true
				n.members = append(n.members, m)
			}
		}
	}
	return nil
}

func scalarKind(y *yaml.Node) kind {
	switch y.ShortTag() {
	case "!!null":
		return null
	case "!!bool":
		return boolean
	case "!!int", "!!float":
		return number
	}
	return text
}

// function writes out CloudFormation's short tags: !Sub x is {Fn::Sub: x}.
func function(n *node, tag string) *node {
	name, ok := strings.CutPrefix(tag, "!")
	if !ok || name == "" || name[0] == '!' {
		return n
	}
	if name != "Ref" && name != "Condition" {
		name = "Fn::" + name
	}
	return &node{kind: object, line: n.line, members: []member{{name, n}}}
}
