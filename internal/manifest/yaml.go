package manifest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// maxDepth bounds the nesting of YAML, with aliases followed: an alias may lie
// within what it stands for.
const maxDepth = 100

// toJSON turns a YAML value into JSON, which has one strict reader. It writes
// no more than MaxDocument: a small file with aliases of aliases can stand for
// more than any memory holds.
func toJSON(node *yaml.Node) ([]byte, error) {
	c := converter{}
	if err := c.value(node, 0); err != nil {
		return nil, err
	}
	return c.out, nil
}

type converter struct{ out []byte }

func (c *converter) value(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: is nested more than %d levels deep", n.Line, maxDepth)
	}
	if len(c.out) > MaxDocument {
		return tooLarge()
	}
	switch n.Kind {
	case yaml.AliasNode:
		return c.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		if tag := n.ShortTag(); tag != "!!seq" {
			return unknownTag(n, tag)
		}
		c.out = append(c.out, '[')
		for i, item := range n.Content {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			if err := c.value(item, depth+1); err != nil {
				return err
			}
		}
		c.out = append(c.out, ']')
		return nil
	case yaml.MappingNode:
		return c.mapping(n, depth)
	}
	return c.scalar(n)
}

func (c *converter) mapping(n *yaml.Node, depth int) error {
	if tag := n.ShortTag(); tag != "!!map" {
		return unknownTag(n, tag)
	}
	seen := map[string]bool{}
	c.out = append(c.out, '{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.ShortTag() == "!!merge":
			return fmt.Errorf("line %d: << is not supported: write the members out, or use an alias for a whole value", key.Line)
		case key.Kind != yaml.ScalarNode:
			return fmt.Errorf("line %d: the name of a member must be text", key.Line)
		case seen[key.Value]:
			return fmt.Errorf("line %d: %q is given twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		if i > 0 {
			c.out = append(c.out, ',')
		}
		if err := c.text(key.Value, key.Line); err != nil {
			return err
		}
		c.out = append(c.out, ':')
		if err := c.value(n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	c.out = append(c.out, '}')
	return nil
}

func (c *converter) scalar(n *yaml.Node) error {
	switch tag := n.ShortTag(); tag {
	case "!!null":
		c.out = append(c.out, "null"...)
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return fmt.Errorf("line %d: %q is neither true nor false", n.Line, n.Value)
		}
		c.out = strconv.AppendBool(c.out, b)
	case "!!int":
		var i int64
		if err := n.Decode(&i); err != nil {
			return fmt.Errorf("line %d: %s does not fit in 64 bits", n.Line, n.Value)
		}
		c.out = strconv.AppendInt(c.out, i, 10)
	case "!!float":
		if !jsontext.Value(n.Value).IsValid() {
			return fmt.Errorf("line %d: %s is not a number as JSON has it", n.Line, n.Value)
		}
		c.out = append(c.out, n.Value...)
	case "!!str", "!!timestamp", "!!merge": // a date without quotes is meant as text here
		return c.text(n.Value, n.Line)
	default:
		return unknownTag(n, tag)
	}
	return nil
}

func (c *converter) text(s string, line int) error {
	if len(c.out)+len(s) > MaxDocument {
		return tooLarge()
	}
	quoted, err := jsontext.AppendQuote(c.out, s)
	if err != nil {
		return fmt.Errorf("line %d: is not valid UTF-8 text", line)
	}
	c.out = quoted
	return nil
}

func unknownTag(n *yaml.Node, tag string) error {
	return fmt.Errorf("line %d: the YAML tag %s is not supported here (fairlead import reads CloudFormation templates)", n.Line, tag)
}

// toYAML writes a JSON value as YAML, members in the order that they have.
func toYAML(value jsontext.Value) ([]byte, error) {
	node, err := toNode(jsontext.NewDecoder(bytes.NewReader(value)))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}

func toNode(in *jsontext.Decoder) (*yaml.Node, error) {
	token, err := in.ReadToken()
	if err != nil {
		return nil, err
	}
	text := token.String()
	switch token.Kind() {
	case '{', '[':
		node, end := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, jsontext.Kind('}')
		if token.Kind() == '[' {
			node, end = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}, ']'
		}
		for in.PeekKind() != end {
			item, err := toNode(in)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle
		}
		_, err := in.ReadToken()
		return node, err
	case '"':
		return textNode(text)
	case '0':
		tag := "!!int"
		if bytes.ContainsAny([]byte(text), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}, nil
	case 'n':
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: text}, nil
}

// textNode is text that every YAML reader takes as text: those of YAML 1.1 read
// a number in 12:30:45, and truth in on. The library's encoder knows which
// texts need quotes, but only of strings, not of nodes. Asking it costs time:
// most texts are names and paths longer than any word with a meaning.
func textNode(text string) (*yaml.Node, error) {
	special := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("/-_", r)
	}
	if len(text) > len("false") && text[0] != '-' && !strings.ContainsFunc(text, special) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}, nil
	}
	node := &yaml.Node{}
	if err := node.Encode(text); err != nil {
		return nil, err
	}
	if node.ShortTag() != "!!str" { // <<
		node.Style = yaml.DoubleQuotedStyle
	}
	return node, nil
}
