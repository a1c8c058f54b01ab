package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/limiter"
	"guesthouse.example/harness/internal/scenario"
	"guesthouse.example/harness/internal/testreport"
	"guesthouse.example/images"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/target"
)

const checkUsage = `guesthouse check [flags] [FILE|DIRECTORY …]

Runs scenarios: tests of machines as scripts, without Go. A FILE is a scenario, NAME.txtar;
of a DIRECTORY, check runs all that are in it and below. Without arguments it is the current
directory. guesthouse help scenario explains the language.

check runs as many scenarios at once as the host carries. Of a scenario that fails, it
prints what the scenario did, the last lines of its machines' consoles, and where their
records are. The exit status is 0 if all scenarios pass, and 1 if one fails.`

// A checkLine is the command line of check.
type checkLine struct {
	targets         []target.Target
	run             *regexp.Regexp
	verbose, asJSON bool
	update          bool
	junit           string
	shard, shards   int
	cache           string
	bootArgs        []string
	files           []string
}

func parseCheck(args []string, std stdio) (*checkLine, error) {
	var c checkLine
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	targets := flags.String("target", "", "the `targets`, such as x86_64,arm64, or all (default: that of this host)")
	only := flags.String("run", "", "run only scenarios whose path matches a regular `expression`")
	shard := flags.String("shard", "", "run a part of the scenarios: `I/N` is the part I of N, from 1 on")
	flags.BoolVar(&c.verbose, "v", false, "print what every scenario does")
	flags.BoolVar(&c.asJSON, "json", false, "print the events of go test -json")
	flags.Func("boot", "an `argument` to put behind those of each boot, such as -boot=-memory=512; may be repeated", appendTo(&c.bootArgs))
	flags.StringVar(&c.junit, "junit", "", "write the results as JUnit's XML into a `file`")
	flags.BoolVar(&c.update, "update", false, "write what cmp gets into the scenarios where it differs")
	flags.StringVar(&c.cache, "cache", "", cacheUsage)
	if err := parse(flags, args, std, checkUsage); err != nil {
		return nil, err
	}
	wrong := func(err error) (*checkLine, error) { return nil, fmt.Errorf("check: %w (%w; see -h)", err, errUsage) }
	var err error
	if c.targets, err = targetsOf(*targets); err != nil {
		return wrong(err)
	}
	if c.update && len(c.targets) > 1 {
		return wrong(errors.New("-update works with one target"))
	}
	if c.run, err = regexp.Compile(*only); err != nil {
		return wrong(fmt.Errorf("-run: %w", err))
	}
	c.shard, c.shards = 1, 1
	if *shard != "" {
		if n, _ := fmt.Sscanf(*shard, "%d/%d", &c.shard, &c.shards); n != 2 || fmt.Sprintf("%d/%d", c.shard, c.shards) != *shard || c.shard < 1 || c.shard > c.shards {
			return wrong(fmt.Errorf("-shard %s: want I/N, such as 1/4, with I from 1 to N", *shard))
		}
	}
	files := flags.Args()
	if len(files) == 0 {
		files = []string{"."}
	}
	for _, name := range files {
		found, err := scenariosIn(name)
		if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		c.files = append(c.files, found...)
	}
	slices.Sort(c.files)
	c.files = slices.Compact(c.files)
	c.files = slices.DeleteFunc(c.files, func(name string) bool { return !c.run.MatchString(name) })
	if len(c.files) == 0 {
		return nil, fmt.Errorf("check: no scenario: want files NAME.txtar in %s", strings.Join(files, ", "))
	}
	return &c, nil
}

// targetsOf returns the targets of a list, all of them, or for an empty list that of GOARCH or of this host.
func targetsOf(list string) (all []target.Target, err error) {
	switch list {
	case "":
		t, err := ofArchitecture(cmp.Or(os.Getenv("GOARCH"), runtime.GOARCH))
		return []target.Target{t}, err
	case "all":
		return target.All(), nil
	}
	for name := range strings.SplitSeq(list, ",") {
		t, err := target.Lookup(name)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// scenariosIn returns the file, or the scenarios in and below the directory.
func scenariosIn(name string) (files []string, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if filepath.Ext(name) != ".txtar" {
			return nil, fmt.Errorf("%s: the name of a scenario ends with .txtar", name)
		}
		return []string{filepath.Clean(name)}, nil
	}
	err = filepath.WalkDir(name, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) == ".txtar" {
			files = append(files, filepath.Clean(path))
		}
		return err
	})
	return files, err
}

func checkCommand(ctx context.Context, args []string, std stdio) error {
	began := time.Now()
	c, err := parseCheck(args, std)
	if err != nil {
		return err
	}
	report := testreport.New(std.out, testreport.Options{JSON: c.asJSON, Verbose: c.verbose})
	limit := limiter.New(nil)
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var all sync.WaitGroup
	var failed bool
	var mu sync.Mutex
	job := 0
	for _, t := range c.targets {
		byDir := make(map[string][]string)
		for _, file := range c.files {
			if job++; (job-1)%c.shards == c.shard-1 {
				byDir[filepath.Dir(file)] = append(byDir[filepath.Dir(file)], file)
			}
		}
		for dir, files := range byDir {
			events := &checkEvents{report: report, run: "[" + t.Name + "]", dir: filepath.ToSlash(dir), giveUp: giveUp}
			all.Go(func() {
				if !c.checkDirectory(ctx, t.Name, files, limit, events) {
					mu.Lock()
					failed = true
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if c.junit != "" {
		if err := writeJUnit(c.junit, report); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	fmt.Fprint(std.err, report.Summary(len(c.targets), time.Since(began)))
	if failed {
		return silentStatus(1)
	}
	return nil
}

// checkDirectory runs the scenarios of a directory on a target. It reports whether all have passed.
func (c *checkLine) checkDirectory(ctx context.Context, target string, files []string, limit *limiter.Limiter, events *checkEvents) bool {
	began := time.Now()
	var all sync.WaitGroup
	var failures sync.Map
	for _, file := range files {
		all.Go(func() {
			if limit.Acquire(ctx) != nil {
				return
			}
			defer limit.Release()
			if !c.checkFile(ctx, target, file, events) {
				failures.Store(file, true)
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return false
	}
	failed := 0
	failures.Range(func(any, any) bool { failed++; return true })
	took := time.Since(began)
	if failed > 0 {
		events.output("", fmt.Sprintf("FAIL\nFAIL\t%s\t%.3fs\n", events.dir, took.Seconds()))
		events.end("", "fail", took)
		return false
	}
	events.output("", fmt.Sprintf("PASS\nok  \t%s\t%.3fs\n", events.dir, took.Seconds()))
	events.end("", "pass", took)
	return true
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
	skipped := (*scenario.Skipped)(nil)
	switch {
	case errors.As(err, &skipped):
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

// relativeTo makes the relative paths of the files of a machine begin at dir.
func (f *specFlags) relativeTo(dir string) {
	in := func(path *string) {
		if *path != "" {
			*path = absoluteIn(dir, *path)
		}
	}
	if f.image.kernel != "" && !images.IsKernelName(f.image.kernel) {
		in(&f.image.kernel)
	}
	in(&f.image.modules)
	in(&f.spec.Kernel)
	in(&f.spec.Initramfs)
	in(&f.spec.Dir)
	for i := range f.spec.Loaders {
		in(&f.spec.Loaders[i].File)
	}
	for i := range f.spec.Disks {
		in(&f.spec.Disks[i].File)
	}
	for i := range f.spec.Share {
		in(&f.spec.Share[i].Host)
	}
}

// checkEvents sends what the scenarios of a directory do to a report, as go test -json has it.
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
