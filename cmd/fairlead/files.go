package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
)

const filesHelp = `A FILE has the create requests of App Mesh's API, as the AWS CLI takes them with
--cli-input-yaml or --cli-input-json and as 'fairlead export' writes them: YAML documents
between lines of ---, or JSON objects or lists of them. Of a DIR all files *.yaml, *.yml
and *.json are read, those of its folders too, but none that begin with a dot; - is
standard input.`

// standardInput is what messages call -.
const standardInput = "standard input"

// addFiles adds the flag that names files.
func addFiles(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "DIR, FILE or - (standard input); may be given several times")
}

// readFiles reads the resources of files and folders. All that is wrong with
// any of them is one error; no resources at all are an error, too.
func readFiles(cmd *cobra.Command, names []string) ([]manifest.Resource, error) {
	var resources []manifest.Resource
	var errs []error
	var shown []string
	for _, name := range names {
		if shown = append(shown, name); name == "-" {
			shown[len(shown)-1] = standardInput
		}
		paths := []string{name}
		if info, err := os.Stat(name); name != "-" && err == nil && info.IsDir() {
			if paths, err = manifestsIn(name); err != nil {
				return nil, err
			}
		}
		for _, path := range paths {
			found, err := readFile(cmd, path)
			resources, errs = append(resources, found...), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(resources) == 0 {
		return nil, fmt.Errorf("there are no resources in %s", strings.Join(shown, ", "))
	}
	return resources, manifest.Unique(resources)
}

func readFile(cmd *cobra.Command, path string) ([]manifest.Resource, error) {
	in, name := cmd.InOrStdin(), standardInput
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read resources: %w", err)
		}
		defer f.Close() //nolint:errcheck // was only read
		in, name = f, path
	}
	data, err := io.ReadAll(io.LimitReader(in, manifest.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return manifest.Read(name, data)
}

// manifestsIn are the files of a folder with resources, in order. What begins
// with a dot is left out: Kubernetes has each file of a ConfigMap twice, once
// behind ..data.
func manifestsIn(dir string) ([]string, error) {
	var paths []string
	root := dir + string(filepath.Separator) // of a link, too, what is in it
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if hidden := path != root && strings.HasPrefix(d.Name(), "."); hidden && d.IsDir() {
			return filepath.SkipDir
		} else if hidden || d.IsDir() {
			return nil
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return paths, nil
}
