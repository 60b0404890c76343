package edge

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// whyWidth is how wide the column of causes is.
const whyWidth = 64

// Text prints rows as a table for people: edge, verdict, why, handshakes. A
// verdict that no counter carries yet is marked as predicted.
func Text(rows []Row) string {
	if len(rows) == 0 {
		return "no edges: nobody in this mesh has backends or gateway routes that reach a listener\n"
	}
	cells := [][]string{{"EDGE", "VERDICT", "WHY", "HANDSHAKES"}}
	for _, r := range rows {
		verdict := string(r.Verdict)
		if !r.Observed {
			verdict += " (predicted)"
		}
		edge := r.Client + " → " + r.Server + ":" + strconv.FormatInt(r.Port, 10)
		for i, line := range wrap(r.Why, whyWidth) {
			if i == 0 {
				cells = append(cells, []string{edge, verdict, line, strconv.FormatUint(r.Handshakes, 10)})
				continue
			}
			cells = append(cells, []string{"", "", line, ""})
		}
	}
	return layOut(cells)
}

// layOut pads all columns but the last.
func layOut(cells [][]string) string {
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, line := range cells {
		var b strings.Builder
		for i, cell := range line {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		out.WriteString(strings.TrimRight(b.String(), " "))
		out.WriteByte('\n')
	}
	return out.String()
}

// wrap breaks text between words; a longer word stands alone.
func wrap(text string, width int) []string {
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}
