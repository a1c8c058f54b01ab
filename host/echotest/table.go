package echotest

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Table returns reports side by side, one check a line. A mark "differs" at the end of a line says that the
// implementations answered differently, and "BROKEN" says that one has broken its promise.
func Table(reports ...Report) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "CHECK")
	for _, r := range reports {
		fmt.Fprint(w, "\t"+r.Name)
	}
	fmt.Fprintln(w)
	if len(reports) == 0 {
		_ = w.Flush() // Writing to memory does not fail.
		return b.String()
	}
	for i, first := range reports[0].Rows {
		fmt.Fprint(w, first.Check)
		var marks []string
		differs := false
		for _, r := range reports {
			row := r.Rows[i]
			fmt.Fprint(w, "\t"+row.Saw)
			differs = differs || row.Saw != first.Saw
			if row.Err != nil {
				marks = append(marks, fmt.Sprintf("BROKEN by %s: %v", r.Name, row.Err))
			}
		}
		if differs {
			marks = append([]string{"differs"}, marks...)
		}
		if len(marks) > 0 {
			fmt.Fprint(w, "\t"+strings.Join(marks, "; "))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	return b.String()
}
