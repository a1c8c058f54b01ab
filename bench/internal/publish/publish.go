// Package publish puts a benchmark's newest results into the project's pages. It keeps the results
// beside the benchmark's code, and writes the charts and tables that show them.
package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/internal/svg"
)

// The files of a benchmark's folder that hold its newest results. They are copies of files that a run
// has written into out/bench.
const (
	resultsJSON   = "results.json"
	resultsReport = "results.md"
)

// Results are the results that the pages show.
type Results struct {
	JSON   []byte
	Report string // Markdown
	Run
}

// A Run is where and when the results were measured.
type Run struct {
	Machine string
	Date    string // such as 2026-11-30
	Runs    int    // of each case
}

// Publish copies the results of a benchmark's last run in the folder out, if there are any, into the benchmark's
// folder, and writes the project's pages. root is the project's folder.
func Publish(root, out, name string, check func(json []byte) error, pages func(root string) (Pages, error)) error {
	folder := filepath.Join(root, "bench", name)
	taken, err := take(out, name, folder, check)
	if err != nil {
		return err
	}
	if !taken {
		fmt.Printf("%s has no results of a run: using those in %s\n", out, folder)
	}
	p, err := pages(root)
	if err != nil {
		return err
	}
	return p.write(root)
}

// take copies NAME.json and NAME.md from a run's folder out into the benchmark's folder. It reports
// whether NAME.json exists. If check returns an error for the content of NAME.json, take copies
// nothing.
func take(out, name, folder string, check func(json []byte) error) (bool, error) {
	json, err := os.ReadFile(filepath.Join(out, name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var report []byte
	if err == nil {
		report, err = os.ReadFile(filepath.Join(out, name+".md"))
	}
	if err == nil {
		err = check(json)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, resultsJSON), json, 0o666)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, resultsReport), report, 0o666)
	}
	if err != nil {
		return false, fmt.Errorf("take the results in %s: %w", out, err)
	}
	return true, nil
}

// Read reads a benchmark's newest results.
func Read(folder string) (r Results, err error) {
	if r.JSON, err = os.ReadFile(filepath.Join(folder, resultsJSON)); err != nil {
		return r, fmt.Errorf("read results: %w", err)
	}
	report, err := os.ReadFile(filepath.Join(folder, resultsReport))
	if err != nil {
		return r, fmt.Errorf("read results: %w", err)
	}
	r.Report = string(report)
	if r.Run, err = parseRun(r.Report); err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Join(folder, resultsReport), err)
	}
	return r, nil
}

// Spread says in the head of a report what its tables show. The pages show only the medians.
const Spread = ", with the least and the greatest in brackets"

// Head returns what the report says before its first table, without its title.
func (r Results) Head() string {
	_, head, _ := strings.Cut(r.Report, "\n")
	head, _, _ = strings.Cut(head, "\n|")
	return strings.Replace(strings.TrimRight(head, "\n"), Spread, "", 1) + "\n\n"
}

var (
	machineLine = regexp.MustCompile(`(?m)^(.+), (\d{4}-\d\d-\d\d)(?: \d\d:\d\d UTC)?\.$`)
	runsLine    = regexp.MustCompile(`(?m)^(\d+) interleaved runs`)
)

// parseRun reads the lines with which every report begins.
func parseRun(report string) (Run, error) {
	machine, runs := machineLine.FindStringSubmatch(report), runsLine.FindStringSubmatch(report)
	if machine == nil || runs == nil {
		return Run{}, errors.New("the report does not name the machine, the date and the number of runs")
	}
	n, err := strconv.Atoi(runs[1])
	return Run{Machine: machine[1], Date: machine[2], Runs: n}, err
}

// Pages are the files that show results, by their paths in the project.
type Pages map[string][]byte

// Chart adds a chart in both themes. The path has neither the theme nor the extension.
func (p Pages) Chart(path string, c chart.Chart) {
	for _, theme := range svg.Themes {
		p[path+"-"+theme.Name+".svg"] = c.SVG(theme)
	}
}

// Section adds a page of the project, with new text between <!-- results --> and <!-- /results -->.
func (p Pages) Section(root, page, text string) error {
	const begin, end = "<!-- results -->\n", "<!-- /results -->"
	old, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("results: %s lacks the lines between which they belong: %s%s", page, begin, end)
	}
	p[page] = []byte(before + begin + text + end + after)
	return nil
}

// write writes the pages.
func (p Pages) write(root string) error {
	for path, content := range p {
		if err := os.WriteFile(filepath.Join(root, path), content, 0o666); err != nil {
			return fmt.Errorf("results: %w", err)
		}
	}
	return nil
}

// Stale returns the paths of the pages that differ from the project's.
func (p Pages) Stale(root string) (paths []string) {
	for path, content := range p {
		if old, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(old) != string(content) {
			paths = append(paths, path)
		}
	}
	return paths
}
