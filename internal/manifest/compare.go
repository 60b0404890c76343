package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// SameSpec reports whether the server would answer with the spec that it has
// when it is sent the one that a file has. No order is ignored: lists of a spec
// have a meaning by their order or are echoed in it.
func SameSpec(file, server any) (bool, error) {
	a, err := json.Marshal(served(file), json.Deterministic(true))
	if err != nil {
		return false, fmt.Errorf("compare specs: %w", err)
	}
	b, err := json.Marshal(server, json.Deterministic(true))
	if err != nil {
		return false, fmt.Errorf("compare specs: %w", err)
	}
	return bytes.Equal(a, b), nil
}

// served is a spec as the server answers with it.
func served(spec any) any {
	switch spec := spec.(type) {
	case *appmesh.VirtualNodeSpec:
		return mesh.FilledNode(spec)
	case *appmesh.VirtualGatewaySpec:
		return mesh.FilledGateway(spec)
	}
	return spec
}

// TagChanges are the tags to set and the keys to remove, so that a resource
// that has some gets those that a file wants. A file without tags wants none
// changed.
func TagChanges(file, server map[string]string) (set map[string]string, remove []string) {
	if file == nil {
		return nil, nil
	}
	set = map[string]string{}
	for key, value := range file {
		if old, ok := server[key]; !ok || old != value {
			set[key] = value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(server)) {
		if _, kept := file[key]; !kept {
			remove = append(remove, key)
		}
	}
	return set, remove
}

// Diff shows what would become of a resource: a unified diff of spec and tags
// as YAML. One of the two is nil for a resource that is made or deleted.
func Diff(server, file *Resource) (string, error) {
	oldName, newName := "(new)", "(deleted)"
	var before, after []string
	var err error
	if server != nil {
		oldName = server.String()
		if before, err = diffLines(*server); err != nil {
			return "", err
		}
	}
	if file != nil {
		newName = file.String() + " " + file.Source
		wanted := *file
		wanted.Spec = served(file.Spec)
		if file.Tags == nil && server != nil {
			wanted.Tags = server.Tags
		}
		if after, err = diffLines(wanted); err != nil {
			return "", err
		}
	}
	return "--- " + oldName + "\n+++ " + newName + "\n" + unified(before, after), nil
}

func diffLines(r Resource) ([]string, error) {
	content := struct {
		Spec any   `json:"spec"`
		Tags []tag `json:"tags,omitzero"`
	}{Spec: r.Spec}
	if len(r.Tags) > 0 {
		content.Tags = tagList(r.Tags)
	}
	text, err := YAML(content)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}

// maxCells bounds the memory of a comparison, in pairs of lines.
const maxCells = 4 << 20

// edit is a line of a diff: ' ' kept, '-' removed, '+' added.
type edit struct {
	sign byte
	text string
}

// unified is a unified diff with three lines around each change.
func unified(before, after []string) string {
	const around = 3
	edits := compareLines(before, after)
	shown := make([]bool, len(edits))
	for i, e := range edits {
		if e.sign != ' ' {
			for j := max(0, i-around); j <= min(len(edits)-1, i+around); j++ {
				shown[j] = true
			}
		}
	}
	var out strings.Builder
	oldLine, newLine := 1, 1
	for i, e := range edits {
		if shown[i] {
			if i == 0 || !shown[i-1] {
				removed, added := hunkSize(edits[i:], shown[i:])
				fmt.Fprintf(&out, "@@ -%s +%s @@\n", hunkRange(oldLine, removed), hunkRange(newLine, added))
			}
			out.WriteByte(e.sign)
			out.WriteString(e.text)
			out.WriteByte('\n')
		}
		if e.sign != '+' {
			oldLine++
		}
		if e.sign != '-' {
			newLine++
		}
	}
	return out.String()
}

// hunkRange is how a hunk's head says where it is: an empty range stands
// behind the line before it.
func hunkRange(first, count int) string {
	if count == 0 {
		first--
	}
	return fmt.Sprintf("%d,%d", first, count)
}

func hunkSize(edits []edit, shown []bool) (removed, added int) {
	for i, e := range edits {
		if !shown[i] {
			break
		}
		if e.sign != '+' {
			removed++
		}
		if e.sign != '-' {
			added++
		}
	}
	return removed, added
}

// compareLines finds the fewest lines to remove and to add, by the longest
// common subsequence of what is between the common beginning and end.
func compareLines(before, after []string) []edit {
	var edits []edit
	head := 0
	for head < len(before) && head < len(after) && before[head] == after[head] {
		edits = append(edits, edit{' ', before[head]})
		head++
	}
	tail := 0
	for tail < len(before)-head && tail < len(after)-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	end := before[len(before)-tail:]
	before, after = before[head:len(before)-tail], after[head:len(after)-tail]
	if len(before)*len(after) <= maxCells {
		edits = append(edits, compareMiddle(before, after)...)
	} else {
		for _, line := range before {
			edits = append(edits, edit{'-', line})
		}
		for _, line := range after {
			edits = append(edits, edit{'+', line})
		}
	}
	for _, line := range end {
		edits = append(edits, edit{' ', line})
	}
	return edits
}

func compareMiddle(before, after []string) []edit {
	// common[i][j] is the length of what before[i:] and after[j:] share.
	common := make([][]int32, len(before)+1)
	for i := range common {
		common[i] = make([]int32, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var edits []edit
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			edits = append(edits, edit{' ', before[i]})
			i, j = i+1, j+1
		case j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1]:
			edits = append(edits, edit{'-', before[i]})
			i++
		default:
			edits = append(edits, edit{'+', after[j]})
			j++
		}
	}
	return edits
}
