package harness

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/target"
)

// newLadder is one whose cheap checks pass on any host.
func newLadder(cache string) *ladder {
	return &ladder{
		device: os.DevNull, host: "amd64", within: time.Minute, later: time.Minute,
		create: func(*os.File) error { return nil },
		cache:  func() (string, error) { return cache, nil },
	}
}

// fakeQEMU is a script that prints a first byte where it emulates. Under KVM it counts its
// runs in a file and then does something.
func fakeQEMU(t *testing.T, does string) (p *plan, binary string, runs func() int) {
	return fakeQEMUs(t, "printf x >&3; exec sleep 1000", does)
}

func fakeQEMUs(t *testing.T, emulated, underKVM string) (p *plan, binary string, runs func() int) {
	dir := t.TempDir()
	binary = filepath.Join(dir, "qemu")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-version*) exit 1;; *accel=tcg*) %s;; esac\nprintf x >>%s/runs\n%s\n", emulated, dir, underKVM)
	require.NoError(t, os.WriteFile(binary, []byte(script), 0o755))
	p, err := minimal(t).check()
	require.NoError(t, err)
	p.qemu.Binary = binary
	return p, binary, func() int {
		text, err := os.ReadFile(filepath.Join(dir, "runs"))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		return len(text)
	}
}

func TestKVMIsRefusedWithEvidenceByTheCheapChecks(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*ladder)
		what, evidence string
	}{
		"missing": {func(l *ladder) { l.device = "/nonexistent/kvm" },
			"this host has no KVM", "open /nonexistent/kvm: no such file or directory"},
		"cannot be opened": {func(l *ladder) { l.device = "/" },
			"KVM cannot be opened", "open /: is a directory"},
		"another device": {func(l *ladder) { l.create = createVM },
			"KVM makes no machine", "/dev/null: KVM_GET_API_VERSION: inappropriate ioctl for device"},
		"no machine": {func(l *ladder) { l.create = func(*os.File) error { return unix.EBUSY } },
			"KVM makes no machine", "/dev/null: device or resource busy"},
		"another processor": {func(l *ladder) { l.host, l.device = "riscv64", "/nonexistent/kvm" },
			"this host's KVM runs no x86_64 guests", "the host is riscv64; KVM runs them on amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLadder(t.TempDir())
			c.change(l)
			p, _, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
			_, err := l.check(t.Context(), p, false)
			var failed *KVMError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "x86_64", failed.Target)
			require.Equal(t, c.what, failed.What)
			require.Equal(t, c.evidence, failed.Evidence)
			require.Contains(t, failed.Hint(), `ask for no acceleration, or for "tcg"`)

			require.NoError(t, l.choose(t.Context(), p))
			require.Equal(t, []any{TCG, c.what, c.evidence}, chosen(p))
			require.Zero(t, runs(), "nothing is booted")
		})
	}
}

// One that would print its byte much later than emulation is the same to it.
func TestKVMThatLiesIsFoundByBootingAndRemembered(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "accel")
	l := newLadder(cache)
	l.later = 300 * time.Millisecond
	p, _, runs := fakeQEMU(t, "echo KVM is fine >&2; exec sleep 1000")
	var first *KVMError
	_, err := l.check(t.Context(), p, false)
	require.ErrorAs(t, err, &first)
	require.Equal(t, "KVM is present but does not boot a guest", first.What)
	require.Regexp(t, `^the kernel printed nothing within \d\.\d\d s.* \(emulated: \d\.\d\d s\)`, first.Evidence)
	require.Contains(t, first.Hint(), "to try once more remove "+cache)

	ran := runs()                                          // a script that never got a processor has not counted itself
	for _, later := range []*ladder{l, newLadder(cache)} { // this process, and another
		_, err = later.check(t.Context(), p, false)
		require.Equal(t, first, err)
	}
	require.Equal(t, ran, runs())

	// Another kernel is another question.
	require.NoError(t, os.WriteFile(p.qemu.Kernel, []byte("another"), 0o644))
	_, err = l.check(t.Context(), p, false)
	require.ErrorAs(t, err, &first)
	files, err := filepath.Glob(filepath.Join(cache, "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 2)
}

// Of a kernel that prints nothing so early nobody knows how long it takes: KVM has all the time.
func TestAKernelThatIsSilentEmulatedSaysNothingOfKVM(t *testing.T) {
	l := newLadder(t.TempDir())
	l.within, l.later = 250*time.Millisecond, time.Nanosecond
	p, _, _ := fakeQEMUs(t, "exit 1", "exec sleep 1000") // such as a QEMU without TCG
	_, err := l.check(t.Context(), p, false)
	var failed *KVMError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Evidence, "the kernel printed nothing within 0.25 s")
	require.NotContains(t, failed.Evidence, "emulated")
}

func TestKVMThatEndsQEMUIsToldWithItsWords(t *testing.T) {
	p, _, _ := fakeQEMU(t, "echo error: failed to set MSR >&2; exit 1")
	_, err := newLadder(t.TempDir()).check(t.Context(), p, false)
	var failed *KVMError
	require.ErrorAs(t, err, &failed)
	require.Regexp(t, `^without a byte on its console, QEMU ended: exit status 1 \(emulated: \d\.\d\d s\): error: failed to set MSR$`, failed.Evidence)
}

func TestKVMThatBootsIsUsedAndRemembered(t *testing.T) {
	cache := t.TempDir()
	p, _, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	evidence, err := newLadder(cache).check(t.Context(), p, false)
	require.NoError(t, err)
	require.Contains(t, evidence, "the kernel's first byte came after ")
	again, err := newLadder(cache).check(t.Context(), p, false)
	require.NoError(t, err)
	require.Equal(t, evidence, again)
	require.Equal(t, 1, runs())
}

// Without a cache each process finds out once.
func TestKVMNeedsNoCache(t *testing.T) {
	l := newLadder("")
	l.cache = func() (string, error) { return "", errors.New("no HOME") }
	p, _, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	for range 2 {
		_, err := l.check(t.Context(), p, false)
		require.NoError(t, err)
	}
	require.Equal(t, 1, runs())
}

// Who gives up learns nothing of KVM, and nothing is remembered.
func TestAProbeThatIsGivenUpIsNoVerdict(t *testing.T) {
	cache := t.TempDir()
	l := newLadder(cache)
	p, _, _ := fakeQEMU(t, "exec sleep 1000")
	why := errors.New("changed their mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err := l.check(ctx, p, false)
	require.ErrorIs(t, err, why)
	files, err := filepath.Glob(filepath.Join(cache, "*.json"))
	require.NoError(t, err)
	require.Empty(t, files)
}

// Where KVM is asked for and does not work the machine does not start, and says
// so with the very error of the probe.
func TestKVMThatIsAskedForIsNeverReplaced(t *testing.T) {
	device := kvm.device
	kvm.device = "/nonexistent/kvm"
	defer func() { kvm.device = device }()
	_, binary, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	s := minimal(t)
	s.Accel, s.QEMU = KVM, binary
	var failed *KVMError
	_, err := Start(t.Context(), s)
	require.ErrorAs(t, err, &failed)
	_, again := ProbeKVM(t.Context(), s)
	require.Equal(t, again, err)
	require.Zero(t, runs())
	s.Kernel = ""
	_, err = ProbeKVM(t.Context(), s)
	require.ErrorAs(t, err, &failed)
}

// chosen is a plan's acceleration and why.
func chosen(p *plan) []any { return []any{p.accel.accel, p.accel.why, p.accel.evidence} }

// asking returns the same plan for a Spec that asks for an acceleration.
func asking(t *testing.T, p *plan, accel Accel) *plan {
	s := p.spec
	s.Accel = accel
	q, err := s.check()
	require.NoError(t, err)
	q.qemu.Binary = p.qemu.Binary
	return q
}

func TestKVMIsChosenWhereItBootsTheKernel(t *testing.T) {
	p, _, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	l := newLadder(t.TempDir())
	require.NoError(t, l.choose(t.Context(), p))
	require.Equal(t, KVM, p.accel.accel)
	require.Equal(t, "it boots the kernel", p.accel.why)
	require.Contains(t, p.accel.evidence, "the kernel's first byte came after ")

	again := asking(t, p, "")
	require.NoError(t, l.choose(t.Context(), again))
	require.Equal(t, chosen(p), chosen(again))
	asked := asking(t, p, KVM)
	require.NoError(t, l.choose(t.Context(), asked))
	require.Equal(t, []any{KVM, "asked for", p.accel.evidence}, chosen(asked))
	tcg := asking(t, p, TCG)
	require.NoError(t, l.choose(t.Context(), tcg))
	require.Equal(t, []any{TCG, "asked for", ""}, chosen(tcg))
	require.Equal(t, 1, runs())
}

// What the ladder does not boot is not chosen by it.
func TestTCGIsChosenForWhatTheLadderDoesNotKnow(t *testing.T) {
	p, _, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	l := newLadder(t.TempDir())
	template := *p
	template.spec.Template = &Template{}
	require.NoError(t, l.choose(t.Context(), &template))
	require.Equal(t, []any{TCG, "that of templates", ""}, chosen(&template))
	args := *p
	args.spec.QEMUArgs = []string{"-icount", "shift=auto"}
	require.NoError(t, l.choose(t.Context(), &args))
	require.Equal(t, []any{TCG, "QEMU arguments of its own", ""}, chosen(&args))
	require.Zero(t, runs())

	// What has nothing to do with KVM is no error of who did not ask for it.
	require.NoError(t, os.Remove(p.qemu.Kernel))
	require.NoError(t, l.choose(t.Context(), p))
	require.Equal(t, "KVM could not be tried", p.accel.why)
	require.Contains(t, p.accel.evidence, "no such file or directory")
}

// A host whose KVM lies costs its deadline once, and not for each kernel.
func TestKVMThatHasBootedNothingIsNotTriedAgainUnasked(t *testing.T) {
	cache := t.TempDir()
	l := newLadder(cache)
	p, _, runs := fakeQEMU(t, `case "$*" in *kernel2*) printf x >&3; exec sleep 1000;; esac; echo no MSR >&2; exit 1`)
	require.NoError(t, l.choose(t.Context(), p))
	evidence := p.accel.evidence
	require.Contains(t, evidence, "without a byte on its console, QEMU ended: exit status 1")
	require.Equal(t, []any{TCG, "KVM is present but does not boot a guest", evidence}, chosen(p))

	second := asking(t, p, "")
	second.spec.Kernel, second.qemu.Kernel = second.spec.Kernel+"2", second.spec.Kernel+"2"
	require.NoError(t, os.WriteFile(second.qemu.Kernel, []byte("another"), 0o644))
	for _, later := range []*ladder{l, newLadder(cache)} { // this process, and another
		q := *second
		require.NoError(t, later.choose(t.Context(), &q))
		require.Equal(t, []any{TCG, "KVM is present but does not boot a guest", "of another kernel: " + evidence}, chosen(&q))
	}
	require.Equal(t, 1, runs())

	// It is when somebody asks, and what boots speaks for KVM.
	require.NoError(t, l.choose(t.Context(), asking(t, second, KVM)))
	require.Equal(t, 2, runs())
	third := asking(t, p, "")
	third.spec.Kernel, third.qemu.Kernel = third.spec.Kernel+"23", third.spec.Kernel+"23"
	require.NoError(t, os.WriteFile(third.qemu.Kernel, []byte("a third"), 0o644))
	require.NoError(t, newLadder(cache).choose(t.Context(), third))
	require.Equal(t, KVM, third.accel.accel)
	require.Equal(t, 3, runs())
}

// The machine starts on TCG, and its record says so and what was asked for.
func TestAMachineWhoseKVMLiesStartsWithoutIt(t *testing.T) {
	before := kvm
	kvm = newLadder(t.TempDir())
	kvm.within = 300 * time.Millisecond
	defer func() { kvm = before }()
	_, binary, _ := fakeQEMUs(t, `echo this is "$*" >&2; exit 1`, "exec sleep 1000")
	s := minimal(t)
	s.QEMU, s.Dir = binary, t.TempDir()
	_, err := Start(t.Context(), s)
	var failed *BootError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Stderr, "accel=tcg")
	var result Result
	text, err := os.ReadFile(filepath.Join(s.Dir, "result.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &result))
	require.Equal(t, TCG, result.Accel)
	require.Equal(t, "KVM is present but does not boot a guest", result.AccelWhy)
	require.Contains(t, result.AccelEvidence, "the kernel printed nothing within 0.30 s")
	asked, err := ReadSpec(filepath.Join(s.Dir, "spec.json"))
	require.NoError(t, err)
	require.Empty(t, asked.Accel)
}

func TestWhoGivesUpChoosesNothing(t *testing.T) {
	p, _, _ := fakeQEMU(t, "exec sleep 1000")
	why := errors.New("changed their mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	require.ErrorIs(t, newLadder(t.TempDir()).choose(ctx, p), why)
}

// The verdicts of this boot and of others that may go on elsewhere are kept. What a writer
// left that was killed is nobody's verdict.
func TestOldVerdictsAreRemoved(t *testing.T) {
	cache := t.TempDir()
	file := func(host string, age time.Duration) string {
		file := writeVerdict(cache, verdictFile{Of: verdictKey{Host: host}})
		when := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(file, when, when))
		return file
	}
	ours, young, old := file("ours", 2*keepVerdicts), file("young", keepVerdicts/2), file("old", 2*keepVerdicts)
	killed := ours + ".new"
	require.NoError(t, os.Rename(ours, killed))
	newLadder(cache).load(cache, "ours")
	require.NoFileExists(t, killed)
	ours = file("ours", 2*keepVerdicts)
	newLadder(cache).load(cache, "ours")
	require.FileExists(t, ours)
	require.FileExists(t, young)
	require.NoFileExists(t, old)
}

func TestTheMachineOfAnAccelerator(t *testing.T) {
	for _, row := range target.All() {
		s := minimal(t)
		s.Target = row.Name
		for accel, want := range map[Accel][2]string{
			"":  {row.Machine + ",accel=tcg", row.CPU},
			TCG: {row.Machine + ",accel=tcg", row.CPU},
			KVM: {cmp.Or(row.KVMMachine, row.Machine) + ",accel=kvm", cmp.Or(row.KVMCPU, row.CPU)},
		} {
			s.Accel = accel
			args, err := s.Command()
			require.NoError(t, err)
			require.Equal(t, want[0], args[slices.Index(args, "-machine")+1])
			require.Equal(t, want[1], args[slices.Index(args, "-cpu")+1])
		}
	}
}
