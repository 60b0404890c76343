package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// environmentPrefix begins the names of environment variables that stand for
// flags: --data-dir is FAIRLEAD_DATA_DIR.
const environmentPrefix = "FAIRLEAD_"

// configFlag names the file with settings; it is itself no setting in the file.
const configFlag = "config"

// applySettings gives every flag that the command line does not set the value
// of its environment variable, else that of the configuration file, else
// leaves its default. The file's keys are the names of the flags; others are
// refused, so that a misspelt one cannot be overlooked.
func applySettings(flags *pflag.FlagSet, getenv func(string) string) error {
	var file string
	if f := flags.Lookup(configFlag); f != nil {
		file = f.Value.String()
		if file == "" {
			file = getenv(environmentName(configFlag))
		}
	}
	settings, err := readSettings(flags, file)
	if err != nil {
		return err
	}
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == configFlag || f.Name == "help" {
			return
		}
		value, source := getenv(environmentName(f.Name)), environmentName(f.Name)
		if value == "" {
			set, ok := settings[f.Name]
			if !ok {
				return
			}
			value, source = set, file+": "+f.Name
		}
		if err := f.Value.Set(value); err != nil {
			faults = append(faults, usagef("%s: %q: %w", source, value, err))
		}
	})
	return errors.Join(faults...)
}

func environmentName(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readSettings reads a YAML file of flags. Lists become comma-separated.
func readSettings(flags *pflag.FlagSet, file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("read configuration: %w", err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(content, &values); err != nil {
		return nil, usagef("read configuration %s: %w", file, err)
	}
	if len(bytes.TrimSpace(content)) > 0 && values == nil {
		values = map[string]any{}
	}
	settings := map[string]string{}
	var unknown []string
	for key, value := range values {
		if flags.Lookup(key) == nil || key == configFlag || key == "help" {
			unknown = append(unknown, key)
			continue
		}
		text, err := settingText(value)
		if err != nil {
			return nil, usagef("read configuration %s: %s: %w", file, key, err)
		}
		settings[key] = text
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, usagef("read configuration %s: unknown keys: %s; the keys are the names of the command's flags, without dashes in front", file, strings.Join(unknown, ", "))
	}
	return settings, nil
}

func settingText(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		var parts []string
		for _, item := range v {
			text, err := settingText(item)
			if err != nil {
				return "", err
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("%v is not a value or a list of values", value)
}
