package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"guesthouse.example/harness/internal/limiter"
	"guesthouse.example/harness/internal/testreport"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/tied"
)

const testUsage = `guesthouse test [flags] [flags of go test] [packages] [-args arguments]

Runs go test for every target with every kernel, and each test binary in a fresh machine,
as guesthouse exec does. It runs as many at once as the host carries. In the output, the
machine follows the name of a package, as in "net [arm64, 6.1.0-47-cloud-arm64]". At the
end, test prints the failed tests and a summary on standard error. With -json it prints the
events of go test -json.

The flag -exec of go test does not work here. -race works on targets of this host's own
architecture. With several targets or kernels, -fuzz and the flags for profiles other than
-coverprofile do not work. test sets CGO_ENABLED to 0 if it is not set, except with -race,
-msan and -asan.

The exit status is that of go test: 0 if all tests pass, 1 if one fails or a package does
not compile, 2 for a wrong command line.`

func testCommand(ctx context.Context, args []string, std stdio) error {
	began := time.Now()
	c, err := parseTest(args, std)
	if err != nil {
		return err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	runs, err := c.prepare(ctx, std.err)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "guesthouse-test-")
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	defer os.RemoveAll(tmp)

	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	report := testreport.New(std.out, testreport.Options{
		JSON: c.has("json"), Verbose: c.has("v"), Passed: c.has("bench") || c.has("list"),
	})
	stderr := &lockedWriter{w: std.err}
	limit := limiter.New(nil)
	var all sync.WaitGroup
	for i := range runs {
		r := &runs[i]
		all.Go(func() {
			if r.err = limit.Acquire(ctx); r.err != nil {
				return
			}
			defer limit.Release()
			if c.coverProfile != "" {
				r.coverProfile = filepath.Join(tmp, fmt.Sprint("cover-", i))
			}
			if r.err = r.goTest(ctx, goTool, self, c, report, stderr); r.err != nil {
				giveUp(r.err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("test: %w", err)
	}
	if err := c.writeResults(report, runs); err != nil {
		return err
	}
	fmt.Fprint(std.err, report.Summary(len(runs), time.Since(began)))
	status := 0
	for _, r := range runs {
		status = max(status, r.status)
	}
	if status != 0 {
		return silentStatus(status)
	}
	return nil
}

// A testRun is one run of go test: on one target, with one kernel.
type testRun struct {
	target       target.Target
	kernel       string
	name         string // as it follows a package's name
	coverProfile string
	status       int // of go test
	err          error
}

// prepare fetches or builds what the machines of all runs boot, one after the other, before tests measure
// their time.
func (c *testLine) prepare(ctx context.Context, log io.Writer) (runs []testRun, err error) {
	seen := make(map[string]bool)
	for _, t := range c.targets {
		for _, kernel := range c.kernels {
			f := c.image
			f.target, f.kernel = t.Name, kernel
			image, err := f.platform(ctx, log)
			if err != nil {
				return nil, err
			}
			r := testRun{target: t, kernel: kernel, name: "[" + t.Name + ", " + cmp.Or(image.Release, filepath.Base(image.Kernel)) + "]"}
			if seen[r.name] {
				r.name = "[" + t.Name + ", " + kernel + "]"
			}
			seen[r.name] = true
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// goTest runs go test and reports its events. It returns an error if go test has not run to its end.
func (r *testRun) goTest(ctx context.Context, goTool, self string, c *testLine, report *testreport.Report, stderr io.Writer) error {
	execArgs := append([]string{self, "exec", "-target=" + r.target.Name}, c.execArgs...)
	execArgs = append(execArgs, "-kernel="+r.kernel)
	for i, arg := range execArgs {
		execArgs[i] = quoteField(arg)
	}
	args := []string{"test", "-json", "-exec=" + strings.Join(execArgs, " ")}
	if r.coverProfile != "" {
		args = append(args, "-coverprofile="+r.coverProfile)
	}
	if c.outputDir != "" || c.has("artifacts") {
		args = append(args, "-outputdir="+r.outputDir(c))
		if err := os.MkdirAll(r.outputDir(c), 0o777); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, goTool, append(args, c.goArgs...)...)
	cmd.Dir, cmd.Env = c.dir, r.environ(c)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Stderr = stderr
	events, w := io.Pipe()
	cmd.Stdout = w
	read := make(chan error, 1)
	go func() {
		err := report.Read(r.name, events)
		events.CloseWithError(err) // go test does not wait for a reader that has failed
		read <- err
	}()
	ended, err := tied.StartGroup(cmd)
	if err == nil {
		err = <-ended
	}
	w.Close()
	if readErr := <-read; readErr != nil {
		return fmt.Errorf("standard output: %w", readErr)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() && ctx.Err() == nil {
		r.status = exit.ExitCode()
		return nil
	}
	return err
}

// outputDir returns the directory for the artifacts of a run. Several runs have directories of their own.
func (r *testRun) outputDir(c *testLine) string {
	dir := absoluteIn(c.dir, cmp.Or(c.outputDir, "."))
	if len(c.targets)*len(c.kernels) > 1 {
		dir = filepath.Join(dir, strings.NewReplacer("[", "", "]", "", ", ", "-", "/", "-").Replace(r.name))
	}
	return dir
}

// environ returns the environment that compiles for the target. It selects the oldest processor of the
// architecture, as the one that QEMU emulates is an old one.
func (r *testRun) environ(c *testLine) []string {
	var env []string // the last value of a variable counts
	if !slices.ContainsFunc(sanitizers, c.has) {
		env = append(env, "CGO_ENABLED=0")
	}
	env = append(env, c.environ...)
	env = append(env, "GOOS=linux", "GOARCH="+r.target.GOARCH, "GO386=sse2", "GOAMD64=v1", "GOARM64=v8.0")
	if r.target.GOARM != "" {
		env = append(env, "GOARM="+r.target.GOARM)
	}
	return env
}

// quoteField quotes a word as the flag -exec of go test has it: whole words in single or double quotes.
func quoteField(word string) string {
	switch {
	case word != "" && !strings.ContainsAny(word, " \t\n\r'\""):
		return word
	case !strings.Contains(word, "'"):
		return "'" + word + "'"
	}
	return `"` + word + `"`
}

// writeResults writes the files that the command line asks for.
func (c *testLine) writeResults(report *testreport.Report, runs []testRun) error {
	if c.junit != "" {
		if err := writeJUnit(c.junit, report); err != nil {
			return fmt.Errorf("test: %w", err)
		}
	}
	if c.coverProfile == "" {
		return nil
	}
	var profiles []string
	for _, r := range runs {
		profiles = append(profiles, r.coverProfile)
	}
	file := c.coverProfile
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.outputDir, file)
	}
	if err := mergeProfiles(absoluteIn(c.dir, file), profiles); err != nil {
		return fmt.Errorf("test: -coverprofile: %w", err)
	}
	return nil
}

// writeJUnit writes a report into the file of the flag -junit.
func writeJUnit(file string, report *testreport.Report) error {
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(report.WriteJUnit(f), f.Close())
	}
	if err != nil {
		return fmt.Errorf("-junit: %w", err)
	}
	return nil
}

// mergeProfiles joins coverage profiles. A profile may list a block of code many times, and its readers, such as
// go tool cover, add them.
func mergeProfiles(file string, profiles []string) error {
	var all []byte
	for _, profile := range profiles {
		text, err := os.ReadFile(profile)
		if errors.Is(err, os.ErrNotExist) {
			continue // no package of the run has compiled
		}
		if err != nil {
			return err
		}
		mode, blocks, _ := bytes.Cut(text, []byte("\n"))
		if all == nil {
			all = append(mode, '\n')
		}
		all = append(all, blocks...)
	}
	return os.WriteFile(file, all, 0o666)
}

// A lockedWriter serializes the writes of several processes' outputs.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
