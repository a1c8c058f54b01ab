package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newLadder is one whose cheap checks pass on any host.
func newLadder(cache string) *ladder {
	return &ladder{
		device: os.DevNull, host: "amd64", within: time.Minute,
		create: func(*os.File) error { return nil },
		cache:  func() (string, error) { return cache, nil },
	}
}

// fakeQEMU is a script that counts its runs in a file and then does something.
func fakeQEMU(t *testing.T, does string) (p *plan, binary string, runs func() int) {
	dir := t.TempDir()
	binary = filepath.Join(dir, "qemu")
	script := fmt.Sprintf("#!/bin/sh\nprintf x >>%s/runs\n%s\n", dir, does)
	require.NoError(t, os.WriteFile(binary, []byte(script), 0o755))
	p, err := minimal(t).check()
	require.NoError(t, err)
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
		"another processor": {func(l *ladder) { l.host = "riscv64" },
			"this host's processor does not run the target", "it is riscv64; the target runs on amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLadder(t.TempDir())
			c.change(l)
			p, binary, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
			_, err := l.check(t.Context(), p, binary)
			var failed *KVMError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "x86_64", failed.Target)
			require.Equal(t, c.what, failed.What)
			require.Equal(t, c.evidence, failed.Evidence)
			require.Contains(t, failed.Hint, useTCG)
			require.Zero(t, runs(), "nothing is booted")
		})
	}
}

func TestKVMThatLiesIsFoundByBootingAndRemembered(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "accel")
	l := newLadder(cache)
	l.within = 300 * time.Millisecond
	p, binary, runs := fakeQEMU(t, "echo KVM is fine >&2; exec sleep 1000")
	var first *KVMError
	_, err := l.check(t.Context(), p, binary)
	require.ErrorAs(t, err, &first)
	require.Equal(t, "KVM is present but does not boot a guest", first.What)
	require.Contains(t, first.Evidence, "the kernel printed nothing within 300ms")
	require.Contains(t, first.Hint, "to try once more remove "+cache)

	ran := runs()                                          // a script that never got a processor has not counted itself
	for _, later := range []*ladder{l, newLadder(cache)} { // this process, and another
		_, err = later.check(t.Context(), p, binary)
		require.Equal(t, first, err)
	}
	require.Equal(t, ran, runs())

	// Another kernel is another question.
	require.NoError(t, os.WriteFile(p.Kernel, []byte("another"), 0o644))
	_, err = l.check(t.Context(), p, binary)
	require.ErrorAs(t, err, &first)
	files, err := filepath.Glob(filepath.Join(cache, "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 2)
}

func TestKVMThatEndsQEMUIsToldWithItsWords(t *testing.T) {
	p, binary, _ := fakeQEMU(t, "echo error: failed to set MSR >&2; exit 1")
	_, err := newLadder(t.TempDir()).check(t.Context(), p, binary)
	var failed *KVMError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "without a byte on its console, QEMU ended: exit status 1: error: failed to set MSR", failed.Evidence)
}

func TestKVMThatBootsIsUsedAndRemembered(t *testing.T) {
	cache := t.TempDir()
	p, binary, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	evidence, err := newLadder(cache).check(t.Context(), p, binary)
	require.NoError(t, err)
	require.Contains(t, evidence, "the kernel's first byte came after ")
	again, err := newLadder(cache).check(t.Context(), p, binary)
	require.NoError(t, err)
	require.Equal(t, evidence, again)
	require.Equal(t, 1, runs())
}

// Without a cache each process finds out once.
func TestKVMNeedsNoCache(t *testing.T) {
	l := newLadder("")
	l.cache = func() (string, error) { return "", errors.New("no HOME") }
	p, binary, runs := fakeQEMU(t, "printf x >&3; exec sleep 1000")
	for range 2 {
		_, err := l.check(t.Context(), p, binary)
		require.NoError(t, err)
	}
	require.Equal(t, 1, runs())
}

// Who gives up learns nothing of KVM, and nothing is remembered.
func TestAProbeThatIsGivenUpIsNoVerdict(t *testing.T) {
	cache := t.TempDir()
	l := newLadder(cache)
	p, binary, _ := fakeQEMU(t, "exec sleep 1000")
	why := errors.New("changed their mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err := l.check(ctx, p, binary)
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

func TestWhyAnAccelerationWasChosenIsKnown(t *testing.T) {
	for accel, why := range map[Accel]string{"": "the default", TCG: "asked for", KVM: "asked for"} {
		s := minimal(t)
		s.Accel = accel
		p, err := s.plan()
		require.NoError(t, err)
		require.Equal(t, why, p.accelWhy)
	}
}
