package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	jsonv2 "github.com/go-json-experiment/json"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"
)

// bootstrapJSON is the bootstrap with the user's own files merged into it. They
// are merged as data, not as messages: they may name extensions that their
// Envoy has and we do not know.
func (c Config) bootstrapJSON(s sockets) ([]byte, error) {
	boot, err := c.bootstrap(s)
	if err != nil {
		return nil, err
	}
	encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(boot)
	if err != nil {
		return nil, fmt.Errorf("encode bootstrap: %w", err)
	}
	var merged map[string]any
	if err := jsonv2.Unmarshal(encoded, &merged); err != nil {
		return nil, fmt.Errorf("encode bootstrap: %w", err)
	}
	for _, file := range []struct{ variable, path, only string }{
		{"ENVOY_RESOURCES_CONFIG_FILE", c.Envoy.ResourcesFile, ""},
		{"ENVOY_TRACING_CFG_FILE", c.Envoy.TracingFile, "tracing"},
		{"ENVOY_STATS_CONFIG_FILE", c.Envoy.StatsFile, "stats_config"},
		{"ENVOY_STATS_SINKS_CFG_FILE", c.Envoy.SinksFile, "stats_sinks"},
	} {
		if file.path == "" {
			continue
		}
		if err := mergeFile(merged, file.path, file.only); err != nil {
			return nil, fmt.Errorf("%s: %w", file.variable, err)
		}
	}
	encoded, err = jsonv2.Marshal(merged, jsonv2.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode bootstrap: %w", err)
	}
	return encoded, nil
}

// mergeFile merges a YAML file in the form of a bootstrap. Of a file for one
// purpose only that part may be there. As App Mesh had it, tracing has one
// source; tags and sinks add up.
func mergeFile(into map[string]any, path, only string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var given map[string]any
	if err := yaml.UnmarshalStrict(text, &given); err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	given, err = protoNames(given, (&bootstrapv3.Bootstrap{}).ProtoReflect().Descriptor(), "")
	if err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	for name := range given {
		if only != "" && name != only {
			return fmt.Errorf("parse %s: it is for %s and has %s", path, only, name)
		}
		if _, taken := into[name]; taken && (name == "tracing" || name == "node" || name == "dynamic_resources" || name == "admin") {
			return fmt.Errorf("merge %s: %s is set elsewhere", path, name)
		}
	}
	return mergeObject(into, given, "")
}

func mergeObject(into, from map[string]any, at string) error {
	for name, value := range from {
		had, taken := into[name]
		switch value := value.(type) {
		case map[string]any:
			if object, ok := had.(map[string]any); ok {
				if err := mergeObject(object, value, at+name+"."); err != nil {
					return err
				}
				continue
			}
		case []any:
			if list, ok := had.([]any); ok {
				into[name] = append(list, value...)
				continue
			}
		}
		if taken {
			return fmt.Errorf("%s%s is set elsewhere", at, name)
		}
		into[name] = value
	}
	return nil
}

// protoNames brings the names of an object to one spelling: Envoy takes
// stats_config and statsConfig. Both at once is an error, as is a name that
// Envoy does not know.
func protoNames(object map[string]any, message protoreflect.MessageDescriptor, at string) (map[string]any, error) {
	if strings.HasPrefix(string(message.FullName()), "google.protobuf.") {
		return object, nil // an extension's configuration, a struct: their own rules
	}
	renamed := map[string]any{}
	var errs []error
	for name, value := range object {
		field := message.Fields().ByName(protoreflect.Name(name))
		if field == nil {
			field = message.Fields().ByJSONName(name)
		}
		if field == nil {
			errs = append(errs, fmt.Errorf("unknown name %s%s", at, name))
			continue
		}
		proper := string(field.Name())
		if _, twice := renamed[proper]; twice {
			errs = append(errs, fmt.Errorf("%s%s is there twice, as %s and %s", at, proper, proper, field.JSONName()))
			continue
		}
		value, err := protoNamesOf(value, field, at+name)
		errs = append(errs, err)
		renamed[proper] = value
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return renamed, errors.Join(errs...)
}

func protoNamesOf(value any, field protoreflect.FieldDescriptor, at string) (any, error) {
	message := field.Message()
	if message == nil || field.IsMap() {
		return value, nil
	}
	switch value := value.(type) {
	case map[string]any:
		return protoNames(value, message, at+".")
	case []any:
		var errs []error
		list := make([]any, len(value))
		for i, item := range value {
			var err error
			if object, ok := item.(map[string]any); ok {
				item, err = protoNames(object, message, fmt.Sprintf("%s[%d].", at, i))
			}
			list[i] = item
			errs = append(errs, err)
		}
		return list, errors.Join(errs...)
	}
	return value, nil
}
