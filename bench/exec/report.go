package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/suite"
)

func markdown(r suite.Report) string {
	var w strings.Builder
	w.WriteString(r.Head("What a program in a machine costs", "All machines are emulated (TCG)."))
	w.WriteString("| case | harness | metric | value |\n| --- | --- | --- | ---: |\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&w, "| %s | %s | %s | %s |\n", row.Case, row.Harness, row.Metric, row.Cell())
	}
	w.WriteString("\n")
	for _, f := range r.Rows.Failures(r.Runs) {
		fmt.Fprintf(&w, "- %s\n", f)
	}
	return w.String()
}
