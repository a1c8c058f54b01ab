package kvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
)

// newProber returns a prober whose check of the device passes on any host.
func newProber(cache string) *Prober {
	return &Prober{
		Device: os.DevNull, HostArch: "amd64", Within: time.Minute, Margin: time.Minute,
		CreateVM: func(*os.File) error { return nil },
		CacheDir: func() (string, error) { return cache, nil },
	}
}

const boots = "printf x >&3; exec sleep 1000" // descriptor 3 is the console

// fakeQEMU returns a machine whose QEMU is a script: it prints a first byte under TCG, and runs
// underKVM otherwise. The function runs returns how often it ran underKVM.
func fakeQEMU(t *testing.T, underKVM string) (m qemu.Machine, runs func() int) {
	return fakeQEMUs(t, boots, underKVM)
}

func fakeQEMUs(t *testing.T, underTCG, underKVM string) (m qemu.Machine, runs func() int) {
	dir := t.TempDir()
	m.Binary, m.Kernel = filepath.Join(dir, "qemu"), filepath.Join(dir, "kernel")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-version*) exit 1;; *accel=tcg*) %s;; esac\nprintf x >>%s/runs\n%s\n", underTCG, dir, underKVM)
	require.NoError(t, os.WriteFile(m.Binary, []byte(script), 0o755))
	require.NoError(t, os.WriteFile(m.Kernel, []byte("anything"), 0o644))
	var err error
	m.Target, err = target.Lookup("x86_64")
	require.NoError(t, err)
	return m, func() int {
		text, err := os.ReadFile(filepath.Join(dir, "runs"))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		return len(text)
	}
}

func TestTheCheckOfTheDeviceRefusesKVMWithEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*Prober)
		what, evidence string
	}{
		"missing": {func(p *Prober) { p.Device = "/nonexistent/kvm" },
			"this host has no KVM", "open /nonexistent/kvm: no such file or directory"},
		"cannot be opened": {func(p *Prober) { p.Device = "/" },
			"KVM cannot be opened", "open /: is a directory"},
		"another device": {func(p *Prober) { p.CreateVM = createVM },
			"KVM creates no virtual machine", "/dev/null: KVM_GET_API_VERSION: inappropriate ioctl for device"},
		"no virtual machine": {func(p *Prober) { p.CreateVM = func(*os.File) error { return unix.EBUSY } },
			"KVM creates no virtual machine", "/dev/null: device or resource busy"},
		"another processor": {func(p *Prober) { p.HostArch, p.Device = "riscv64", "/nonexistent/kvm" },
			"this host's KVM runs no x86_64 guests", "the host is riscv64; KVM runs them on amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProber(t.TempDir())
			c.change(p)
			m, runs := fakeQEMU(t, boots)
			_, err := p.Probe(t.Context(), m, false)
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "x86_64", failed.Target)
			require.Equal(t, c.what, failed.What)
			require.Equal(t, c.evidence, failed.Evidence)
			require.Contains(t, failed.Hint(), `ask for no acceleration, or for "tcg"`)
			require.Zero(t, runs(), "nothing is booted")

			m.Kernel = ""
			_, err = p.Probe(t.Context(), m, false)
			require.Equal(t, failed, err)
		})
	}
}

func TestWithoutAKernelOnlyTheDeviceIsChecked(t *testing.T) {
	m, runs := fakeQEMU(t, boots)
	m.Kernel = ""
	evidence, err := newProber(t.TempDir()).Probe(t.Context(), m, false)
	require.NoError(t, err)
	require.Equal(t, "/dev/null creates virtual machines; no kernel has been booted with it", evidence)
	require.Zero(t, runs())
}

// A KVM under which the byte comes much later than under TCG fails in the same way.
func TestASilentKVMFailsAndItsVerdictIsCached(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "accel")
	p := newProber(cache)
	p.Margin = 300 * time.Millisecond
	m, runs := fakeQEMU(t, "echo KVM is fine >&2; exec sleep 1000")
	var first *Error
	_, err := p.Probe(t.Context(), m, false)
	require.ErrorAs(t, err, &first)
	require.Equal(t, "KVM is present but does not boot a guest", first.What)
	require.Regexp(t, `^the kernel printed nothing within \d\.\d\d s.* \(emulated: \d\.\d\d s\)`, first.Evidence)
	require.Contains(t, first.Hint(), "to probe KVM again, remove "+cache)

	ran := runs() // on a busy host the script may never have run
	for name, later := range map[string]*Prober{"this process": p, "another process": newProber(cache)} {
		_, err = later.Probe(t.Context(), m, false)
		require.Equal(t, first, err, name)
	}
	require.Equal(t, ran, runs())

	// The verdict is for this kernel alone.
	require.NoError(t, os.WriteFile(m.Kernel, []byte("another"), 0o644))
	_, err = p.Probe(t.Context(), m, false)
	require.ErrorAs(t, err, &first)
	require.Len(t, cached(t, cache), 2)
}

func cached(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	return files
}

func TestKVMHasAllTheTimeForAKernelThatIsSilentUnderTCG(t *testing.T) {
	p := newProber(t.TempDir())
	p.Within, p.Margin = 250*time.Millisecond, time.Nanosecond
	m, _ := fakeQEMUs(t, "exit 1", "exec sleep 1000") // as a QEMU that was built without TCG
	_, err := p.Probe(t.Context(), m, false)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Evidence, "the kernel printed nothing within 0.25 s")
	require.NotContains(t, failed.Evidence, "emulated")
}

func TestTheEvidenceHasTheOutputOfAQEMUThatEnds(t *testing.T) {
	m, _ := fakeQEMU(t, "echo error: failed to set MSR >&2; exit 1")
	_, err := newProber(t.TempDir()).Probe(t.Context(), m, false)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Regexp(t, `^without a byte on its console, QEMU ended: exit status 1 \(emulated: \d\.\d\d s\): error: failed to set MSR$`, failed.Evidence)
}

func TestOnlyTheStartOfAFloodOfOutputIsKept(t *testing.T) {
	var h head
	for range 1000 {
		n, err := h.Write([]byte("0123456789"))
		require.NoError(t, err)
		require.Equal(t, 10, n)
	}
	require.Equal(t, strings.Repeat("0123456789", 1000)[:4096], h.String())
}

func TestTheVerdictOfAKVMThatBootsIsCached(t *testing.T) {
	cache := t.TempDir()
	m, runs := fakeQEMU(t, boots)
	evidence, err := newProber(cache).Probe(t.Context(), m, false)
	require.NoError(t, err)
	require.Contains(t, evidence, "the kernel's first byte came after ")
	again, err := newProber(cache).Probe(t.Context(), m, false)
	require.NoError(t, err)
	require.Equal(t, evidence, again)
	require.Equal(t, 1, runs())
}

func TestWithoutACacheAProcessProbesOnce(t *testing.T) {
	notADirectory := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(notADirectory, nil, 0o644))
	for name, cacheDir := range map[string]func() (string, error){
		"no HOME":         func() (string, error) { return "", errors.New("no HOME") },
		"not a directory": func() (string, error) { return notADirectory, nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProber("")
			p.CacheDir = cacheDir
			m, runs := fakeQEMU(t, boots)
			for range 2 {
				_, err := p.Probe(t.Context(), m, false)
				require.NoError(t, err)
			}
			require.Equal(t, 1, runs())
		})
	}
}

func TestAProbeThatIsCancelledLeavesNoVerdict(t *testing.T) {
	cache := t.TempDir()
	m, _ := fakeQEMU(t, "exec sleep 1000")
	why := errors.New("cancelled by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err := newProber(cache).Probe(ctx, m, false)
	require.ErrorIs(t, err, why)
	require.Empty(t, cached(t, cache))
}

// Another process holds the build lock.
func TestWaitingForAnotherProbeEndsWithTheContext(t *testing.T) {
	cache := t.TempDir()
	s, err := store.Open(cache, store.Options{Private: true})
	require.NoError(t, err)
	other, err := s.Build(t.Context(), "x86_64")
	require.NoError(t, err)
	defer other.Close()
	m, runs := fakeQEMU(t, boots)
	why := errors.New("cancelled by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err = newProber(cache).Probe(ctx, m, false)
	require.ErrorIs(t, err, why)
	require.Zero(t, runs())
}

func TestAKVMThatHasBootedNoKernelIsPresumedToFail(t *testing.T) {
	cache := t.TempDir()
	p := newProber(cache)
	m, runs := fakeQEMU(t, `case "$*" in *kernel2*) `+boots+`;; esac; echo no MSR >&2; exit 1`)
	_, err := p.Probe(t.Context(), m, true)
	var first *Error
	require.ErrorAs(t, err, &first)

	second := m
	second.Kernel += "2"
	require.NoError(t, os.WriteFile(second.Kernel, []byte("another"), 0o644))
	for name, later := range map[string]*Prober{"this process": p, "another process": newProber(cache)} {
		_, err := later.Probe(t.Context(), second, true)
		var failed *Error
		require.ErrorAs(t, err, &failed, name)
		require.Equal(t, "with another kernel: "+first.Evidence, failed.Evidence)
	}
	require.Equal(t, 1, runs())

	_, err = p.Probe(t.Context(), second, false)
	require.NoError(t, err)
	require.Equal(t, 2, runs())

	// Now KVM has booted a kernel, so nothing is presumed.
	third := m
	third.Kernel += "23"
	require.NoError(t, os.WriteFile(third.Kernel, []byte("a third"), 0o644))
	_, err = newProber(cache).Probe(t.Context(), third, true)
	require.NoError(t, err)
	require.Equal(t, 3, runs())
}

// Another boot may go on elsewhere, on a host that shares the directory.
func TestOldVerdictsOfOtherBootsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	cache, err := store.Open(dir, store.Options{Private: true})
	require.NoError(t, err)
	file := func(host string, age time.Duration) string {
		b, err := cache.Build(t.Context(), "x86_64")
		require.NoError(t, err)
		defer b.Close()
		file := save(cache, b, cachedVerdict{Of: key{Host: host}})
		require.NotEmpty(t, file)
		when := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(file, when, when))
		return file
	}
	ours, young, old := file("ours", 2*keepStale), file("young", keepStale/2), file("old", 2*keepStale)
	p := newProber(dir)
	p.load(cache, "ours")
	require.FileExists(t, ours)
	require.FileExists(t, young)
	require.NoFileExists(t, old)
	_, known := p.known(key{Host: "ours"}, false)
	require.True(t, known)
	_, known = p.known(key{Host: "young"}, false)
	require.False(t, known)

	// A process that was killed in save has left its file in the directory of the build.
	killed := cache.Path("tmp", "x86_64", "ours.json")
	require.NoError(t, os.Mkdir(filepath.Dir(killed), 0o700))
	require.NoError(t, os.Rename(ours, killed))
	p = newProber(dir)
	p.load(cache, "ours")
	_, known = p.known(key{Host: "ours"}, false)
	require.False(t, known)
	file("next", 0)
	require.NoFileExists(t, killed)
}
