// Package scenario runs integration tests that are scripts: they boot machines, use their networks and consoles, and
// say what must come back, in txtar files. The table of the verbs is also the reference that "guesthouse help
// scenario" prints.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/internal/printable"
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

	// Update makes cmp write what it gets into the scenario's file, where that differs.
	Update bool
}

// A Skipped is the error of a scenario that has ended with the verb skip.
type Skipped struct{ Reason string }

func (s *Skipped) Error() string { return "skipped: " + s.Reason }

// A run is one run of a scenario.
type run struct {
	Options
	ctx     context.Context
	file    string
	dir     string // of the file
	work    string // the directory of the script's files, which is removed at the end
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

// A saved machine is what the verb restore boots.
type saved struct {
	spec     harness.Spec
	template *harness.Template
}

// savesMachines finds scripts with the verb save, whose machines have to be savable.
var savesMachines = regexp.MustCompile(`(?m)^[ \t]*(?:\[[^]]*\][ \t]*|[!?][ \t]*)*save\b`)

// Run runs the scenario in a file on one target, and writes on log what it does. It returns a *Skipped if the scenario
// skips itself, and otherwise an error that says in which line the scenario has failed and why. All of the
// scenario's machines have ended when Run returns; those of a failed scenario leave their records.
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
	r.savable = savesMachines.Match(r.archive.script)
	if err := r.archive.extract(work); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return r.finish(r.execute())
}

// finish ends all machines. A machine that has crashed or ended by itself fails the scenario.
func (r *run) finish(failed error) error {
	for _, m := range r.order {
		if err := m.finish(failed != nil); err != nil {
			failed = errors.Join(failed, fmt.Errorf("machine %s: %w", m.name, err))
		}
	}
	isFailure := failed != nil && !errors.As(failed, new(*Skipped))
	for _, m := range r.order {
		if isFailure {
			m.MarkFailed(fmt.Errorf("the scenario failed: %w", failed)) // so that its record stays
		}
		if err := m.Close(); err != nil && failed == nil && !m.mayEnd {
			failed, isFailure = fmt.Errorf("machine %s: %w", m.name, err), true
		}
		if isFailure {
			fmt.Fprintf(r.log, "machine %s:\n%s\n", m.name, m.Report())
		}
	}
	if failed == nil && r.updated {
		return r.writeFile()
	}
	return failed
}

// A machine is one that the script has booted.
type machine struct {
	*harness.Machine
	name   string
	mayEnd bool // the script expects its end, or has ended it
}

// crashWithin bounds, in the machine's time, how long a failed scenario waits for its guest to report a crash, which
// often comes after its connections have broken.
const crashWithin = 500 * time.Millisecond

// finish returns why the machine fails the scenario.
func (m *machine) finish(failed bool) error {
	if failed {
		ctx, cancel := m.Within(context.Background(), crashWithin)
		m.Wait(ctx)
		cancel()
	}
	if m.Result().PowerOff != "" { // its end comes in a moment
		ctx, cancel := m.Within(context.Background(), within)
		m.Wait(ctx)
		cancel()
	}
	if crash := m.Console().Crash(); crash != "" {
		return fmt.Errorf("the guest crashed: %s", printable.Text(crash))
	}
	select {
	case <-m.Done():
		if err := m.Wait(context.Background()); !m.mayEnd {
			if err == nil {
				err = errors.New("it has powered off, and no shutdown or wait expects that")
			}
			return err
		}
	default:
	}
	if err := m.Console().Rejected(); err != nil && !failed {
		return err
	}
	if warnings := m.Console().Warnings(); len(warnings) > 0 {
		return fmt.Errorf("the guest was at fault:\n\t%s", strings.Join(printable.Lines(warnings), "\n\t"))
	}
	return nil
}
