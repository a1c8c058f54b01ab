package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
)

// A report describes a run in words and tables.
type report struct {
	cases []suite.Case
	rows  suite.Rows
	runs  int
	begin time.Time
}

// write writes exec.json and exec.md.
func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	var md strings.Builder
	r.markdown(&md)
	for name, text := range map[string]string{"exec.json": string(text) + "\n", "exec.md": md.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# What a program in a machine costs\n\n%s, %s UTC.\n\n", results.Machine(), r.begin.UTC().Format("2006-01-02 15:04"))
	fmt.Fprintf(w, "%d interleaved runs; medians, with the least and the greatest in brackets. "+
		"All machines are emulated (TCG).\n\n", r.runs)
	fmt.Fprintln(w, "| case | harness | metric | value |\n| --- | --- | --- | ---: |")
	for _, row := range r.rows {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", row.Case, row.Harness, row.Metric, row.Cell())
	}
	fmt.Fprintln(w)
	for _, f := range r.rows.Failures(r.runs) {
		fmt.Fprintf(w, "- %s\n", f)
	}
}
