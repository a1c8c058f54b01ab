package suite

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
)

// A Benchmark is a command that runs cases and publishes their results.
type Benchmark struct {
	Name   string        // of its files: NAME.json, NAME.md
	Runs   int           // of each case, unless the user says otherwise
	Within time.Duration // bounds one run of a case

	// Cases returns all cases. Source is the folder of guesthouse's module. The folder tmp is removed at the
	// end.
	Cases func(ctx context.Context, source, tmp string) ([]Case, error)

	// Files returns the contents of the files beside NAME.json, by their extensions. "md" is among them.
	Files func(Report) map[string]string

	// Shown are the cases, and their metrics, that the pages show. A run that lacks one is not published.
	Shown []Case

	// Section returns the part of the benchmark's README.md that shows the results.
	Section func(Rows, publish.Results) string

	// Charts returns the charts of the pages, by their paths as [publish.Pages.Chart] takes them. It is nil if there
	// are none.
	Charts func(Rows, publish.Run) map[string]chart.Chart
}

// A Report is a run of a benchmark.
type Report struct {
	Cases []Case
	Rows  Rows
	Runs  int
	Begin time.Time
}

// Head returns the beginning of a report in Markdown: a title, the machine, the date, the number of runs,
// and what is said about them.
func (r Report) Head(title, says string) string {
	return fmt.Sprintf("# %s\n\n%s, %s UTC.\n\n%d interleaved runs; medians%s. %s\n\n",
		title, results.Machine(), r.Begin.UTC().Format("2006-01-02 15:04"), r.Runs, publish.Spread, says)
}

// Main is the main function of the command.
func (b Benchmark) Main() {
	runs := flag.Int("runs", b.Runs, "how often to run each case")
	out := flag.String("out", "../../out/bench", "folder for the files "+b.Name+".*")
	source := flag.String("source", "../..", "folder of guesthouse's module")
	cases := flag.String("cases", "", "run only cases whose names begin with one of these prefixes, separated by commas")
	figures := flag.Bool("figures", false, "measure nothing: write the project's pages, from the results in the out folder if there are any, otherwise from the published ones")
	flag.Parse()
	err := error(nil)
	if *figures {
		err = publish.Publish(*source, *out, b.Name, b.check, b.pages)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		err = b.run(ctx, *source, *out, *runs, *cases)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// check returns an error for results that lack something that the pages show.
func (b Benchmark) check(text []byte) error {
	rows, err := readRows(text)
	if err != nil {
		return err
	}
	return b.Complete(rows)
}

func readRows(text []byte) (rows Rows, err error) {
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return rows, nil
}

// Complete returns an error if no run of a metric in Shown has succeeded.
func (b Benchmark) Complete(rows Rows) error {
	for _, c := range b.Shown {
		for _, metric := range c.Metrics {
			r, _ := rows.At(c.Name, c.Harness, metric)
			if r.Median == nil {
				return fmt.Errorf("%s of %s has no result: %s", c.Name, c.Harness, r.Failed)
			}
		}
	}
	return nil
}

// pages returns the project's pages that show the newest results.
func (b Benchmark) pages(root string) (publish.Pages, error) {
	folder := filepath.Join("bench", b.Name)
	r, err := publish.Read(filepath.Join(root, folder))
	if err != nil {
		return nil, err
	}
	rows, err := readRows(r.JSON)
	if err != nil {
		return nil, err
	}
	p := publish.Pages{}
	if b.Charts != nil {
		for path, c := range b.Charts(rows, r.Run) {
			p.Chart(path, c)
		}
	}
	err = p.Section(root, filepath.Join(folder, "README.md"), b.Section(rows, r))
	return p, err
}

// Stale returns the paths of the project's pages that do not show the newest results. make figures brings them up to
// date.
func (b Benchmark) Stale(root string) ([]string, error) {
	p, err := b.pages(root)
	return p.Stale(root), err
}

func (b Benchmark) run(ctx context.Context, source, out string, runs int, only string) error {
	r := Report{Runs: runs, Begin: time.Now()}
	source, err := filepath.Abs(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	tmp, err := os.MkdirTemp("", "guesthouse-bench-"+b.Name+"-")
	if err != nil {
		return fmt.Errorf("make folder for templates: %w", err)
	}
	defer os.RemoveAll(tmp)
	all, err := b.Cases(ctx, source, tmp)
	if err != nil {
		return err
	}
	if r.Cases, err = Select(all, only); err != nil {
		return err
	}
	if r.Rows, err = Run(ctx, r.Cases, runs, b.Within); err != nil {
		return err
	}
	if err := b.write(r, out); err != nil {
		return err
	}
	fmt.Printf("%s written in %v\n", filepath.Join(out, b.Name+".*"), time.Since(r.Begin).Round(time.Second))
	return nil
}

// write writes the files of a report.
func (b Benchmark) write(r Report, dir string) error {
	text, err := json.MarshalIndent(r.Rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	files := b.Files(r)
	files["json"] = string(text) + "\n"
	for extension, content := range files {
		if err := os.WriteFile(filepath.Join(dir, b.Name+"."+extension), []byte(content), 0o666); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}
