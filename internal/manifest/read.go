package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// MaxFile bounds a file, MaxDocument one resource in it as JSON, with YAML's
// aliases expanded: what the server takes as one request. In bytes.
const (
	MaxFile     = 8 << 20
	MaxDocument = 1 << 20
)

// maxErrors bounds how many faults of a file are told.
const maxErrors = 100

// raw is a document whose syntax is good, as JSON.
type raw struct {
	line int
	json []byte
	err  error // instead of json
}

// Read reads the documents of one file: YAML documents between lines of ---,
// JSON objects one after the other, or lists of them. The name is for messages;
// one that ends in .json promises JSON. Nothing is ignored: what is not known,
// given twice or of the wrong type is an error, and so is what the service
// model refuses. The error has one line for each fault of the file.
func Read(name string, data []byte) ([]Resource, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s: has %d bytes; at most %d are read: split it", name, len(data), MaxFile)
	}
	documents, err := split(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var resources []Resource
	var errs []error
	for i, d := range documents {
		source := fmt.Sprintf("%s:%d", name, d.line)
		if len(documents) > 1 {
			source += fmt.Sprintf(" (document %d)", i+1)
		}
		var r Resource
		if d.err == nil {
			r, d.err = parse(d.json)
		}
		if d.err != nil {
			for line := range strings.SplitSeq(d.err.Error(), "\n") {
				errs = append(errs, fmt.Errorf("%s: %s", source, line))
			}
			continue
		}
		r.Source = source
		resources = append(resources, r)
	}
	if len(errs) > maxErrors {
		errs = append(errs[:maxErrors], fmt.Errorf("%s: and %d more", name, len(errs)-maxErrors))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return resources, nil
}

// Unique refuses resources that are given twice.
func Unique(resources []Resource) error {
	seen := map[Key]Resource{}
	var errs []error
	for _, r := range resources {
		if first, twice := seen[r.Key()]; twice {
			errs = append(errs, fmt.Errorf("%s: %s is in %s already", r.Source, r, first.Source))
			continue
		}
		seen[r.Key()] = r
	}
	return errors.Join(errs...)
}

func split(name string, data []byte) ([]raw, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	promised := strings.EqualFold(path.Ext(name), ".json")
	if promised || bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[")) {
		documents, err := splitJSON(data)
		if err == nil || promised {
			return documents, err
		}
	}
	return splitYAML(data)
}

// splitJSON reads objects, and lists of objects, one after the other.
func splitJSON(data []byte) ([]raw, error) {
	var documents []raw
	in := jsontext.NewDecoder(bytes.NewReader(data))
	line, counted := 1, int64(0)
	for {
		kind := in.PeekKind()
		if in.StackDepth() == 0 && kind == '[' || in.StackDepth() == 1 && kind == ']' {
			if _, err := in.ReadToken(); err != nil {
				return nil, fmt.Errorf("is not valid JSON: %w", err)
			}
			continue
		}
		value, err := in.ReadValue()
		if errors.Is(err, io.EOF) && in.StackDepth() == 0 {
			return documents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("is not valid JSON: %w", err)
		}
		begin := in.InputOffset() - int64(len(value))
		line, counted = line+bytes.Count(data[counted:begin], []byte("\n")), begin
		d := raw{line: line, json: value.Clone()}
		if len(value) > MaxDocument {
			d = raw{line: line, err: tooLarge()}
		}
		documents = append(documents, d)
	}
}

func tooLarge() error {
	return fmt.Errorf("has more than %d bytes as JSON, with its aliases expanded: no request may", MaxDocument)
}

// splitYAML reads documents between lines of ---; one that is a list stands for
// its items, an empty one for nothing.
func splitYAML(data []byte) ([]raw, error) {
	var documents []raw
	in := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := in.Decode(&node)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("is not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		for _, content := range node.Content {
			items := []*yaml.Node{content}
			if content.Kind == yaml.SequenceNode {
				items = content.Content
			}
			for _, item := range items {
				if item.ShortTag() == "!!null" {
					continue
				}
				document, err := toJSON(item)
				documents = append(documents, raw{line: item.Line, json: document, err: err})
			}
		}
	}
}
