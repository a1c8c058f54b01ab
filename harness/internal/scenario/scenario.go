// Package scenario runs scenarios: scripts in txtar files that boot machines, use their networks and consoles, and
// compare the answers with the expected ones. The reference of the language is made from the table of the verbs.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/verdict"
)

// Options say how a scenario runs. Boot is required.
type Options struct {
	// Target is the target of machines that do not choose one.
	Target string

	// Name is the name of the scenario in records.
	Name string

	// Boot returns the Spec for the arguments of the verb boot. Relative paths in them begin at dir, the
	// scenario's own directory. Boot may write on log what it builds.
	Boot func(ctx context.Context, target, dir string, args []string, log io.Writer) (harness.Spec, error)

	// Update makes cmp write a text that differs into the scenario's file.
	Update bool
}

// A Skipped is the error of a scenario that the verb skip has ended.
type Skipped struct{ Reason string }

func (s *Skipped) Error() string { return "skipped: " + s.Reason }

// A run is one run of a scenario.
type run struct {
	Options
	ctx     context.Context
	file    string
	dir     string // of the file
	work    string // the directory of the script's files, which is removed at the end
	records string // the directory of the machines' records, which a failed scenario leaves
	archive *archive
	updated bool // archive differs from the file
	log     io.Writer

	variables      map[string]string
	stdout, stderr string // of the last verb with output

	machines map[string]*machine
	order    []*machine // as they were booted
	current  string     // the machine of verbs without -m
	savable  bool       // the script saves machines
	saved    map[string]saved
}

// A saved state starts the machines of the verb restore.
type saved struct {
	spec     harness.Spec
	template *harness.Template
}

// Run runs the scenario in a file on one target, and logs its lines and their output. It returns a *Skipped if the
// scenario skips itself, and otherwise an error that names the failed line and the reason. When Run returns,
// all machines of the scenario have ended. A failed scenario leaves their records.
func Run(ctx context.Context, file string, o Options, log io.Writer) (err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "guesthouse-scenario-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	r := &run{Options: o, ctx: ctx, file: file, dir: dir, work: work, archive: parseArchive(text), log: log,
		variables: map[string]string{"WORK": work, "DIR": dir, "TARGET": o.Target},
		machines:  make(map[string]*machine), saved: make(map[string]saved)}
	if err := r.archive.extract(work); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	script, err := r.parse()
	if err != nil {
		return err
	}
	return r.finish(r.execute(script))
}

// recordDir returns the directory for the record of the next machine.
func (r *run) recordDir(machine string) (string, error) {
	if r.records == "" {
		prefix := "guesthouse-scenario-" + r.Name + "-"
		records.SweepKilled(os.TempDir(), regexp.MustCompile("^"+regexp.QuoteMeta(prefix)+`\d+$`))
		dir, err := os.MkdirTemp("", prefix)
		if err != nil {
			return "", err
		}
		r.records = dir
	}
	return filepath.Join(r.records, fmt.Sprintf("%d-%s", len(r.order)+1, machine)), nil
}

// finish ends all machines, and returns why the scenario has failed.
func (r *run) finish(failed error) error {
	for _, m := range r.order {
		for _, reason := range verdict.Of(m.Machine, failed, m.mayEnd) {
			failed = errors.Join(failed, fmt.Errorf("machine %s: %w", m.name, reason))
		}
	}
	switch {
	case failed == nil && r.updated:
		failed = r.writeFile()
	case failed != nil && !errors.As(failed, new(*Skipped)):
		for _, m := range r.order {
			m.MarkFailed(fmt.Errorf("the scenario failed: %w", failed))
			fmt.Fprintf(r.log, "machine %s:\n%s\n", m.name, m.Report())
		}
		return failed
	}
	if r.records != "" {
		failed = errors.Join(failed, os.RemoveAll(r.records))
	}
	return failed
}

// A machine is one that the script has booted.
type machine struct {
	*harness.Machine
	name   string
	mayEnd bool // the script expects its end, or has ended it
}
