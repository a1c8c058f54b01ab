package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/limiter"
	"guesthouse.example/harness/internal/scenario"
	"guesthouse.example/harness/internal/testreport"
	"guesthouse.example/internal/printable"
)

// checkDirectory runs the scenarios of a directory on a target. It reports whether all have passed.
func (c *checkLine) checkDirectory(ctx context.Context, target string, files []string, limit *limiter.Limiter, events *checkEvents) bool {
	began := time.Now()
	var all sync.WaitGroup
	var failed atomic.Bool
	for _, file := range files {
		all.Go(func() {
			if limit.Acquire(ctx) != nil {
				return
			}
			defer limit.Release()
			if !c.checkFile(ctx, target, file, events) {
				failed.Store(true)
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return false
	}
	took, action, says := time.Since(began), "pass", "PASS\nok  "
	if failed.Load() {
		action, says = "fail", "FAIL\nFAIL"
	}
	events.output("", fmt.Sprintf("%s\t%s\t%.3fs\n", says, events.dir, took.Seconds()))
	events.end("", action, took)
	return !failed.Load()
}

// checkFile runs one scenario.
func (c *checkLine) checkFile(ctx context.Context, target, file string, events *checkEvents) bool {
	name := strings.TrimSuffix(filepath.Base(file), ".txtar")
	events.send(checkEvent{Action: "run", Test: name})
	events.output(name, "=== RUN   "+name+"\n")
	var log bytes.Buffer
	safe := printable.NewWriter(&log)
	began := time.Now()
	err := scenario.Run(ctx, file, scenario.Options{Target: target, Name: name, Boot: c.boot, Update: c.update}, safe)
	took := time.Since(began)
	action, verdict := "pass", "PASS"
	switch {
	case errors.As(err, new(*scenario.Skipped)):
		action, verdict = "skip", "SKIP"
	case err != nil:
		action, verdict = "fail", "FAIL"
	}
	if err != nil {
		fmt.Fprintln(safe, err)
	}
	if safe.Flush(); ctx.Err() != nil {
		return false
	}
	for line := range strings.Lines(log.String()) {
		events.output(name, "    "+strings.TrimSuffix(line, "\n")+"\n")
	}
	events.output(name, fmt.Sprintf("--- %s: %s (%.2fs)\n", verdict, name, took.Seconds()))
	events.end(name, action, took)
	return action != "fail"
}

// boot is the verb boot. A wrong line is a *scenario.UsageError.
func (c *checkLine) boot(ctx context.Context, target, dir string, args []string, log io.Writer) (harness.Spec, error) {
	spec, err := c.bootSpec(ctx, target, dir, args, log)
	if errors.Is(err, errUsage) {
		err = &scenario.UsageError{Err: err}
	}
	return spec, err
}

// bootSpec returns the Spec for the arguments of the verb boot. Relative paths begin at dir.
func (c *checkLine) bootSpec(ctx context.Context, target, dir string, args []string, log io.Writer) (harness.Spec, error) {
	var f specFlags
	flags := flag.NewFlagSet("boot", flag.ContinueOnError)
	f.register(flags)
	f.image.target, f.image.cache, f.image.dir = target, c.cache, dir
	args = append(slices.Clone(args), c.bootArgs...)
	if err := parse(flags, args, stdio{out: log, err: log}, "boot [flags] [IMAGE]"); err != nil {
		return harness.Spec{}, err
	}
	if err := f.check(flags); err != nil {
		return harness.Spec{}, err
	}
	f.relativeTo(dir)
	cache := new(harness.TemplateCache) // the user's
	if err := f.build(ctx, "boot", f.cold, cache, log); err != nil {
		return harness.Spec{}, err
	}
	f.spec.From = cache
	if f.cold {
		f.spec.From = harness.Cold
	}
	return f.spec, nil
}

// checkEvents reports the scenarios of a directory with the events of go test -json.
type checkEvents struct {
	report   *testreport.Report
	run, dir string
	giveUp   context.CancelCauseFunc
}

// A checkEvent is an event of go test -json.
type checkEvent struct {
	Time    time.Time
	Action  string
	Package string
	Test    string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"`
	Output  string  `json:",omitempty"`
}

func (e *checkEvents) send(event checkEvent) {
	event.Time, event.Package = time.Now(), e.dir
	text, err := json.Marshal(event)
	if err == nil {
		err = e.report.Read(e.run, bytes.NewReader(append(text, '\n')))
	}
	if err != nil {
		e.giveUp(fmt.Errorf("standard output: %w", err))
	}
}

func (e *checkEvents) output(test, text string) {
	for line := range strings.Lines(text) {
		e.send(checkEvent{Action: "output", Test: test, Output: line})
	}
}

func (e *checkEvents) end(test, action string, took time.Duration) {
	e.send(checkEvent{Action: action, Test: test, Elapsed: took.Seconds()})
}
