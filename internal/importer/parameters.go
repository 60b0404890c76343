package importer

import "fmt"

// ReadParameters reads values for CloudFormation templates: {"Name": "value"}, a
// list of {"ParameterKey": …, "ParameterValue": …}, or either under "Parameters",
// as tools for CloudFormation take them.
func ReadParameters(in Input) (map[string]string, error) {
	documents, err := parse(in.Data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", in.Name, err)
	}
	values := map[string]string{}
	set := func(name string, value *node, line int) error {
		if name == "" || value == nil || value.kind == list || value.kind == object || value.kind == null {
			return fmt.Errorf("read %s: line %d: a parameter must have a name and a value", in.Name, line)
		}
		values[name] = value.text
		return nil
	}
	for _, n := range documents {
		if inner := n.get("Parameters"); inner != nil {
			n = inner
		}
		if n.kind != list && n.kind != object {
			return nil, fmt.Errorf("read %s: line %d: parameters must be a list or an object, not %s", in.Name, n.line, n.kind)
		}
		for _, item := range n.items {
			if err := set(item.get("ParameterKey").str(), item.get("ParameterValue"), item.line); err != nil {
				return nil, err
			}
		}
		for _, m := range n.members {
			if err := set(m.name, m.value, m.value.line); err != nil {
				return nil, err
			}
		}
	}
	return values, nil
}
