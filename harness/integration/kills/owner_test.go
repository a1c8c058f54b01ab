package kills

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/tied"
)

// patience bounds every wait. Even on a slow host nothing here takes longer.
const patience = 5 * time.Minute

const (
	ownVariable      = "GUESTHOUSE_TEST_OWN"      // the spec.json of the machine that the test binary boots as an owner
	templateVariable = "GUESTHOUSE_TEST_TEMPLATE" // the template that it restores instead
	cacheVariable    = "GUESTHOUSE_TEST_CACHE"    // the cache in which it has a machine prefetched
	markVariable     = "GUESTHOUSE_TEST_MARK"     // marks all processes of an owner, whatever their parents are by then
)

// TestMain makes the test binary an owner if the environment says so. It then prints what guesthouse
// run prints.
func TestMain(m *testing.M) {
	if spec := os.Getenv(ownVariable); spec != "" {
		own(m, spec)
		return
	}
	os.Exit(m.Run())
}

// own boots a machine. At any time, a line on standard input tells it how to end, without Close.
func own(m *testing.M, spec string) {
	s, err := harness.ReadSpec(spec)
	fatal(err)
	if dir := os.Getenv(templateVariable); dir != "" {
		template, err := harness.OpenTemplate(dir)
		fatal(err)
		s.From = template
	}
	if dir := os.Getenv(cacheVariable); dir != "" {
		fatal(waits(dir, s))
		fmt.Fprintln(os.Stderr, "waits")
		end(m, nil)
		return
	}
	machine, err := harness.Start(context.Background(), s)
	fatal(err)
	go machine.Console().Follow(context.Background(), os.Stdout)
	closing := make(chan struct{})
	go func() {
		if err := machine.WaitReady(context.Background()); err != nil {
			select {
			case <-closing:
				return
			default:
				fatal(err)
			}
		}
		line := "ready"
		for _, p := range machine.Ports() {
			line += fmt.Sprintf("; %s 127.0.0.1:%d -> %d", p.Network, p.Host, p.Guest)
		}
		fmt.Fprintln(os.Stderr, line)
		fatal(work(machine))
	}()
	end(m, func() {
		close(closing)
		fatal(machine.Close())
	})
}

// waits returns when a machine of the Spec is prefetched.
func waits(cache string, s harness.Spec) error {
	c := &harness.TemplateCache{Dir: cache, Prefetch: true}
	for range 100 { // that takes a while if other tests use the host's memory
		if n, err := c.Waiting(context.Background()); n > 0 || err != nil {
			return err
		}
		s.From = c
		machine, err := harness.Boot(context.Background(), s)
		if err != nil {
			return err
		}
		machine.Close()
	}
	return errors.New("the host has no memory for a prefetched machine: a quarter of it must be free")
}

// end reads a line from standard input and ends the owner in that way.
func end(m *testing.M, closes func()) {
	way, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	switch strings.TrimSpace(way) {
	case "return":
		return
	case "error":
		fatal(errors.New("as it was told"))
	case "panic":
		panic("as it was told")
	case "timeout":
		flag.Set("test.timeout", "1ns")
		flag.Set("test.run", "^TestAnOwnerLeavesNothingHoweverItDies$")
		os.Exit(m.Run())
	case "close":
		closes()
	default:
		fatal(fmt.Errorf("unknown way to die: %q", way))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// An owner is a running process that has booted a machine.
type owner struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Closer
	out   transcript // the console
	err   transcript // the owner's own messages
	mark  string
	tmp   string // its directory for temporary files
	ended <-chan error
	read  sync.WaitGroup // of out and err
}

// start starts an owner in a process group of its own.
func start(t *testing.T, env []string, args ...string) *owner {
	o := &owner{t: t, tmp: t.TempDir()}
	o.mark = markVariable + "=" + o.tmp
	o.cmd = exec.Command(args[0], args[1:]...)
	o.cmd.Env = append(append(os.Environ(), "TMPDIR="+o.tmp, o.mark), env...)
	in, err := o.cmd.StdinPipe()
	require.NoError(t, err)
	o.in = in
	var far []*os.File
	pipe := func(to *transcript) *os.File {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		to.changed = make(chan struct{})
		o.read.Go(func() {
			io.Copy(to, r)
			r.Close()
		})
		far = append(far, w)
		return w
	}
	o.cmd.Stdout, o.cmd.Stderr = pipe(&o.out), pipe(&o.err)
	o.ended, err = tied.Start(o.cmd)
	for _, w := range far {
		w.Close()
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("standard error:\n%s\nconsole:\n%s", o.err.text(), o.out.text())
			for _, p := range sys.ProcessesWithEnv(o.mark) {
				unix.Kill(p.PID, unix.SIGKILL)
			}
		}
	})
	return o
}

// tell sends a line to the owner's standard input.
func (o *owner) tell(line string) {
	_, err := io.WriteString(o.in.(io.Writer), line+"\n")
	require.NoError(o.t, err)
}

// waitEnd waits for the owner's end.
func (o *owner) waitEnd() {
	o.t.Helper()
	select {
	case <-o.ended:
	case <-time.After(patience):
		o.t.Fatal("the owner has not ended")
	}
}

// A transcript is the output of a process so far.
type transcript struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed and replaced by every Write
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.b.Write(p)
}

func (s *transcript) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// waitFor waits until one of the owner's transcripts matches.
func (o *owner) waitFor(s *transcript, pattern string) []string {
	o.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(patience)
	for {
		s.mu.Lock()
		found, changed := re.FindStringSubmatch(s.b.String()), s.changed
		s.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-changed:
		case err := <-o.ended:
			o.t.Fatalf("the owner has ended (%v) and has not printed %q", err, pattern)
		case <-late:
			o.t.Fatalf("the owner has not printed %q", pattern)
		}
	}
}
