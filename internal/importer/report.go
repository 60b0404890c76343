package importer

import (
	"fmt"
	"io"
	"strings"
)

// WriteReport says for people what a Result has beside its resources.
func (r *Result) WriteReport(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Carried over: %d\n", len(r.Carried))
	for _, name := range r.Carried {
		fmt.Fprintf(&b, "  %s\n", OneLine(name))
	}
	findings(&b, "Not carried over", r.Lost)
	findings(&b, "Unsafe or broken", r.Unsafe)
	findings(&b, "Notes", r.Notes)
	list := func(title, why string, all []Need) {
		if len(all) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s: %d\n", title, len(all))
		for _, n := range all {
			fmt.Fprintf(&b, "  %s%s%s\n", OneLine(n.Name), why, OneLine(strings.Join(n.Resources, ", ")))
		}
	}
	list("Certificates needed", "\n    by ", r.Certificates)
	list("Root CAs needed", "\n    by ", r.Authorities)
	list("Cloud Map namespaces needed", "\n    by ", r.Namespaces)
	if len(r.Skipped) > 0 {
		b.WriteString("\nNot App Mesh's, and left alone:\n")
		for _, n := range r.Skipped {
			fmt.Fprintf(&b, "  %d %s\n", len(n.Resources), OneLine(n.Name))
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func findings(b *strings.Builder, title string, all []Finding) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s: %d\n", title, len(all))
	for _, f := range all {
		where := f.Resource
		if f.Source != "" {
			where += " (" + f.Source + ")"
		}
		fmt.Fprintf(b, "  %s\n    %s\n", OneLine(strings.TrimSpace(where)), OneLine(f.Message))
	}
}

// OneLine takes out of what a file says all that could look like more of the
// report, or speak to a terminal.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}
