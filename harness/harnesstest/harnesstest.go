// Package harnesstest is the testing layer of package harness, as httptest is
// that of net/http: it builds a guest program into a bootable image, boots it for
// one test, and fails that test with the console's last words.
//
//	func TestUpper(t *testing.T) {
//		harnesstest.EachTarget(t, func(t *testing.T, target string) {
//			spec := harnesstest.Spec(t, target, "./cmd/upper")
//			spec.Ports = []string{"udp/4242"}
//			m := harnesstest.Boot(t, spec)
//			conn := m.Dial("udp", 4242)
//			...
//		})
//	}
//
// A target whose QEMU is not installed skips the test, unless the environment
// variable GUESTHOUSE_REQUIRE, a list such as "x86_64,arm64", has it: then the
// test fails. With go test's flag -artifacts the record of every machine is
// kept in the test's artifact directory; otherwise only that of a failed test
// is, in the system's temporary directory, and that of a test that was killed until
// it runs again.
//
// The go command may answer from its cache of test results (package list mode). It runs the
// test again after a change of the guest's sources, of what they import and embed, of the
// kernel, of QEMU or of the environment; go test -count=1 always runs it.
package harnesstest

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// Within bounds every wait of a [Machine] that has no deadline of its own, in the
// machine's time; see [harness.Machine.Within].
const Within = 30 * time.Second

// EachTarget runs f for every target as a subtest of the target's name, side by side,
// and returns when all have ended. As many run at once as the host's memory and
// processors carry, which is measured; the wait for that is no part of the subtest.
// Call t.Parallel before it to have the targets of several tests run side by side.
//
// The environment variable GUESTHOUSE_TARGETS, a list such as "arm,arm64", leaves
// the others out.
func EachTarget(t *testing.T, f func(t *testing.T, target string)) {
	t.Helper()
	names := asked(t).targets
	if names == nil {
		names = target.Names()
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, name := range names {
		all.Go(func() {
			host.enter()
			defer host.leave()
			t.Run(name, func(t *testing.T) {
				Require(t, name)
				f(t, name)
			})
		})
	}
}

// host is the gate to it.
var host = newGate()

// Require skips the test where the target's QEMU is not installed, and fails
// it there if GUESTHOUSE_REQUIRE has the target.
func Require(t testing.TB, name string) {
	t.Helper()
	tg, err := target.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	required := asked(t).required
	if _, err := testcache.LookPath(tg.QEMU); err != nil {
		missing := &harness.MissingQEMUError{Binary: tg.QEMU, Package: tg.QEMUPackage, Err: err}
		if slices.Contains(required, name) {
			t.Fatalf("%s has %s: %v", requireVariable, name, missing)
		}
		t.Skip(missing)
	}
}

// A Machine is a harness.Machine that belongs to a test: what fails, fails the
// test, and says what the console showed. Its methods wait at most Within, and
// work in a Cleanup too.
type Machine struct {
	*harness.Machine
	t        testing.TB
	mayBeOff atomic.Bool           // the test has seen the machine's end
	failed   atomic.Pointer[error] // why the machine failed the test
}

// templates returns the user's cache.
var templates = sync.OnceValue(func() *harness.TemplateCache {
	prefetch, _ := switched(prefetchVariable, true) // Boot has looked at the error
	return &harness.TemplateCache{Prefetch: prefetch}
})

// EndPrefetched ends the machines that wait for a test to boot them. They end with
// the test binary, in whatever way it ends; a TestMain that looks for processes or
// goroutines left behind calls it first.
func EndPrefetched() { templates().Close() }

// Boot boots the machine of a Spec, and ends it when the test does. The first of
// its kind is saved when it is ready, and the next ones are restored from it: see
// [harness.TemplateCache], of which the user's is used. Spec.Cold refuses
// that, and GUESTHOUSE_COLD=1 (true, yes, on) does where the Spec names no template.
//
// While a test runs, the next machine of the same kind is restored and waits, so that
// a test that boots it has it in some tens of milliseconds, where the host's memory
// carries that; GUESTHOUSE_PREFETCH=0 (false, no, off) switches it off.
//
// A guest that crashes fails the test. So does a machine that ends, as it does when the guest's
// program ends, without the test's having asked for it by Shutdown, Wait or WaitExit.
//
// A guest with a data race, a report of a sanitizer or another of [harness.Console.Warnings] fails
// the test at its end.
func Boot(t testing.TB, spec harness.Spec) *Machine {
	t.Helper()
	if spec.QEMU == "" {
		Require(t, spec.Target)
	}
	if spec.Dir == "" {
		spec.Dir = recordDir(t)
	}
	if asked(t).cold && spec.Template == nil {
		spec.Cold = true
	}
	spec.Test = t.Name()
	stop := beforeDeadline(t, func() {
		sayTimeout(t, fmt.Sprintf("the machine, %s, is being started; record: %s", spec.Target, spec.Dir))
	})
	booted, err := templates().Start(t.Context(), spec)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	stop = beforeDeadline(t, func() { timeout(t, booted) })
	if err := booted.WaitReady(t.Context()); err != nil {
		stop()
		booted.Close()
		t.Fatal(err)
	}
	m := &Machine{Machine: booted, t: t}
	t.Cleanup(func() {
		stop()
		m.lastWords()
		ended, err := m.ended()
		if broken := m.Close(); broken != nil && (err == nil || !errors.Is(err, broken)) {
			m.fails(broken)
		}
		switch crash := m.Console().Crash(); {
		case crash != "":
			m.fails(fmt.Errorf("the guest crashed during the test: %s", printable.Text(crash)))
		case !ended || m.mayBeOff.Load():
		case err != nil:
			m.fails(fmt.Errorf("the machine ended during the test: %w", err))
		default:
			m.fails(fmt.Errorf("the machine powered off during the test, which neither Shutdown nor Wait asked for: %s", printable.Text(whyOff(m.Result()))))
		}
		if warnings := m.Console().Warnings(); len(warnings) > 0 {
			m.fails(fmt.Errorf("the guest was at fault during the test:\n\t%s", strings.Join(printable.Lines(warnings), "\n\t")))
		}
		if hasFailed(t) {
			m.MarkFailed(m.verdict())
			t.Log(m.Report())
		}
	})
	return m
}

// verdict is why the test has failed, as far as its machine knows.
func (m *Machine) verdict() error {
	if err := m.failed.Load(); err != nil {
		return fmt.Errorf("the test failed: %w", *err)
	}
	if panics() {
		return errors.New("the test panicked")
	}
	return errors.New("the test failed")
}

// hasFailed reports in a Cleanup whether the test has failed. Of a test that panics package
// testing says so only when the Cleanups have run.
func hasFailed(t testing.TB) bool { return t.Failed() || panics() }

// panics reports whether a panic has brought the caller here.
func panics() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if f.Function == "runtime.gopanic" {
			return true
		}
		if !more {
			return false
		}
	}
}

// fails fails the test, and fatal ends it too.
func (m *Machine) fails(err error) {
	m.t.Helper()
	m.failed.CompareAndSwap(nil, &err)
	m.t.Error(err)
}

func (m *Machine) fatal(err error) {
	m.t.Helper()
	m.fails(err)
	m.t.FailNow()
}

// wordsWithin is how long, in the machine's time, a test that has failed waits for its guest
// to tell of a crash.
const wordsWithin = 500 * time.Millisecond

// lastWords gives the guest of a test that has failed the time to tell of a crash: often a
// connection that breaks is the first sign of it, before a word of it has come.
func (m *Machine) lastWords() {
	if !hasFailed(m.t) {
		return
	}
	ctx, cancel := m.Machine.Within(context.Background(), wordsWithin)
	defer cancel()
	m.Machine.Wait(ctx)
}

// whyOff says why a guest has powered off, and how its program ended.
func whyOff(r harness.Result) string {
	why := cmp.Or(r.PowerOff, "it did not say why")
	if r.Exit != nil {
		why += fmt.Sprintf(" (%v)", r.Exit)
	}
	return why
}

// ended reports whether the machine has ended, and how.
func (m *Machine) ended() (bool, error) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	err := m.Machine.Wait(now)
	return !errors.Is(err, context.Canceled), err
}

// within returns a context for one wait, also in a Cleanup, where that of the
// test has ended.
func (m *Machine) within() (context.Context, context.CancelFunc) {
	return m.Machine.Within(context.WithoutCancel(m.t.Context()), Within)
}

// recordDir returns a new directory for a record. Those that an earlier run of the same test
// left when it was killed are removed.
func recordDir(t testing.TB) string {
	t.Helper()
	parent := ""
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		parent = t.ArtifactDir()
	}
	// The name leads to the test when nothing else can any more.
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' {
			return r
		}
		return '-'
	}, t.Name())
	if parent == "" {
		records.SweepKilled(os.TempDir(), regexp.MustCompile("^"+regexp.QuoteMeta(name)+`-\d+$`))
	}
	dir, err := os.MkdirTemp(parent, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if parent == "" {
		t.Cleanup(func() {
			if !hasFailed(t) {
				os.RemoveAll(dir)
			}
		})
	}
	return dir
}

// Dial connects to one of the guest's ports that the Spec lists. The connection
// ends with the machine, see [harness.Machine.Dial]; it fails every read and write
// after four times Within, on the wall, and is closed when the test ends.
func (m *Machine) Dial(network string, port int) net.Conn {
	m.t.Helper()
	ctx, cancel := m.within()
	defer cancel()
	conn, err := m.Machine.Dial(ctx, network, port)
	if err != nil {
		m.fatal(err)
	}
	conn.SetDeadline(time.Now().Add(4 * Within))
	m.t.Cleanup(func() { conn.Close() })
	return conn
}

// Expect waits until the console shows text that matches the pattern, after
// what the last Expect matched, and returns the match and its submatches; see
// [harness.Console.Expect].
func (m *Machine) Expect(pattern string) []string {
	m.t.Helper()
	ctx, cancel := m.within()
	defer cancel()
	match, err := m.Console().Expect(ctx, pattern)
	if err != nil {
		m.fatal(err)
	}
	return match
}

// Send types a line on the console. Expect does not match its echo; see
// [harness.Console.Send].
func (m *Machine) Send(line string) {
	m.t.Helper()
	ctx, cancel := m.within()
	defer cancel()
	if err := m.Console().Send(ctx, line); err != nil {
		m.fatal(err)
	}
}

// Output runs a command in the guest, apart from its console, and returns what it wrote to its
// standard output. The test fails if the command ends with another status than 0;
// [harness.Machine.Command] is for one that may.
func (m *Machine) Output(name string, args ...string) string {
	m.t.Helper()
	ctx, cancel := m.within()
	defer cancel()
	out, err := m.Command(ctx, name, args...).Output()
	if err != nil {
		m.fatal(err)
	}
	return string(out)
}

// Event waits for the next of what the guest tells with guest.Event.
func (m *Machine) Event() string {
	m.t.Helper()
	ctx, cancel := m.within()
	defer cancel()
	text, err := m.Machine.Event(ctx)
	if err != nil {
		m.fatal(err)
	}
	return text
}

// Shutdown powers the guest off and fails the test if it does not, or if it had
// crashed.
func (m *Machine) Shutdown() {
	m.t.Helper()
	m.mayBeOff.Store(true)
	ctx, cancel := m.within()
	defer cancel()
	if err := m.Machine.Shutdown(ctx); err != nil {
		m.fatal(err)
	}
}

// WaitExit waits until the guest's program has ended with that status, and the machine with it,
// and fails the test if it ends in another way.
func (m *Machine) WaitExit(status int) {
	m.t.Helper()
	m.mayBeOff.Store(true)
	ctx, cancel := m.within()
	defer cancel()
	if err := m.Machine.WaitExit(ctx, status); err != nil {
		m.fatal(err)
	}
}

// Wait waits until the guest has powered off by itself, and fails the test if
// it crashes or ends in another way, which a program does that ends with another status than 0 or
// by a signal.
func (m *Machine) Wait() {
	m.t.Helper()
	m.mayBeOff.Store(true)
	ctx, cancel := m.within()
	defer cancel()
	if err := m.Machine.Wait(ctx); err != nil {
		m.fatal(err)
	}
}
