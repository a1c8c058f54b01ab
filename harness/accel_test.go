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

	"guesthouse.example/harness/internal/kvm"
	"guesthouse.example/harness/internal/qemu"
	files "guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/target"
)

// newProber returns a prober whose check of the device passes on any host.
func newProber(cache string) *kvm.Prober {
	return &kvm.Prober{
		Device: os.DevNull, HostArch: "amd64", Within: time.Minute, Margin: time.Minute,
		CreateVM: func(*os.File) error { return nil },
		CacheDir: func() (string, error) { return cache, nil },
	}
}

const boots = "printf x >&3; exec sleep 1000" // descriptor 3 is the console

// fakeQEMU returns the plan of a machine whose QEMU is a script: it prints a first byte under TCG,
// and runs underKVM otherwise. The function runs returns how often it ran underKVM.
func fakeQEMU(t *testing.T, underKVM string) (p *plan, runs func() int) {
	return fakeQEMUs(t, boots, underKVM)
}

func fakeQEMUs(t *testing.T, underTCG, underKVM string) (p *plan, runs func() int) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "qemu")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-version*) exit 1;; *accel=tcg*) %s;; esac\nprintf x >>%s/runs\n%s\n", underTCG, dir, underKVM)
	require.NoError(t, os.WriteFile(binary, []byte(script), 0o755))
	p, err := minimal(t).check()
	require.NoError(t, err)
	p.qemu.Binary = binary
	return p, func() int {
		text, err := os.ReadFile(filepath.Join(dir, "runs"))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		return len(text)
	}
}

func TestTCGIsChosenWithTheReasonAgainstKVM(t *testing.T) {
	prober := newProber(t.TempDir())
	prober.Device = "/nonexistent/kvm"
	p, runs := fakeQEMU(t, boots)
	require.NoError(t, p.chooseAccel(t.Context(), prober))
	require.Equal(t, []any{TCG, "this host has no KVM", "open /nonexistent/kvm: no such file or directory"}, chosen(p))
	require.Zero(t, runs(), "nothing is booted")
}

func TestTCGNeverReplacesKVMThatTheSpecAsksFor(t *testing.T) {
	device := hostKVM.Device
	hostKVM.Device = "/nonexistent/kvm"
	defer func() { hostKVM.Device = device }()
	p, runs := fakeQEMU(t, boots)
	s := minimal(t)
	s.Accel, s.QEMU = KVM, p.qemu.Binary
	_, err := Start(t.Context(), s)
	var failed *KVMError
	require.ErrorAs(t, err, &failed)
	_, probed := hostKVM.Probe(t.Context(), p.qemu, false)
	var refused *kvm.Error
	require.ErrorAs(t, probed, &refused)
	require.Equal(t, refused.Error(), err.Error())
	require.Equal(t, kvm.Error(*failed), *refused)
	require.Zero(t, runs())
}

// chosen returns the acceleration of a plan, the reason and the evidence.
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

func TestKVMIsChosenIfItBootsTheKernel(t *testing.T) {
	p, runs := fakeQEMU(t, boots)
	prober := newProber(t.TempDir())
	require.NoError(t, p.chooseAccel(t.Context(), prober))
	require.Equal(t, KVM, p.accel.accel)
	require.Equal(t, "it boots the kernel, and restores no machine", p.accel.why)
	require.Regexp(t, `^the kernel's first byte came after .*; not restored: it was not tried$`, p.accel.evidence)

	again := asking(t, p, "")
	require.NoError(t, again.chooseAccel(t.Context(), prober))
	require.Equal(t, chosen(p), chosen(again))
	asked := asking(t, p, KVM)
	require.NoError(t, asked.chooseAccel(t.Context(), prober))
	require.Equal(t, []any{KVM, "asked for, and restores no machine", p.accel.evidence}, chosen(asked))
	tcg := asking(t, p, TCG)
	require.NoError(t, tcg.chooseAccel(t.Context(), prober))
	require.Equal(t, []any{TCG, "asked for", ""}, chosen(tcg))
	require.Equal(t, 1, runs())
}

func TestTCGIsChosenForMachinesThatTheProbeDoesNotBoot(t *testing.T) {
	p, runs := fakeQEMU(t, boots)
	prober := newProber(t.TempDir())
	template := *p
	template.spec.From = &Template{}
	require.NoError(t, template.chooseAccel(t.Context(), prober))
	require.Equal(t, []any{TCG, "the template was saved under TCG", ""}, chosen(&template))
	args := *p
	args.spec.QEMUArgs = []string{"-icount", "shift=auto"}
	require.NoError(t, args.chooseAccel(t.Context(), prober))
	require.Equal(t, []any{TCG, "it has QEMU arguments of its own", ""}, chosen(&args))
	require.Zero(t, runs())

	// A failure that says nothing about KVM is no error for a Spec that does not ask for KVM.
	require.NoError(t, os.Remove(p.qemu.Kernel))
	require.NoError(t, p.chooseAccel(t.Context(), prober))
	require.Equal(t, "KVM could not be tried", p.accel.why)
	require.Contains(t, p.accel.evidence, "no such file or directory")
}

// Under KVM a machine is saved and restored only where the probe has restored one.
func TestTemplatesUnderKVM(t *testing.T) {
	for name, c := range map[string]struct {
		restore error
		why, no string
	}{
		"restored":     {nil, "it boots the kernel, and restores a saved machine", ""},
		"not restored": {errors.New("restoring a machine: no MSR"), "it boots the kernel, and restores no machine", "KVM has restored no machine on this host: restoring a machine: no MSR"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := fakeQEMU(t, boots)
			prober := newProber(t.TempDir())
			prober.Restore = func(context.Context, qemu.Machine, time.Duration) error { return c.restore }
			require.NoError(t, p.chooseAccel(t.Context(), prober))
			require.Equal(t, KVM, p.accel.accel)
			require.Equal(t, c.why, p.accel.why)
			require.Equal(t, c.no, p.noTemplate())
			require.Equal(t, c.no == "", p.savable())

			// A template fits only the acceleration, the host and the boot on which it was saved.
			id, err := p.identity()
			require.NoError(t, err)
			require.NotEmpty(t, id.Host)
			underTCG := asking(t, p, TCG)
			require.NoError(t, underTCG.chooseAccel(t.Context(), prober))
			require.Empty(t, underTCG.noTemplate())
			other, err := underTCG.identity()
			require.NoError(t, err)
			require.Empty(t, other.Host)
			require.ErrorContains(t, (&files.Template{Description: files.Description{Of: other}}).Fits(id), "the template was saved with another host")
			require.True(t, (&Template{&files.Template{Description: files.Description{Of: id}}}).underKVM())
			require.False(t, (&Template{&files.Template{Description: files.Description{Of: other}}}).underKVM())

			// A Spec's own template decides.
			from := *p
			from.spec.From = &Template{&files.Template{Description: files.Description{Of: id}}}
			require.NoError(t, from.chooseAccel(t.Context(), prober))
			require.Equal(t, KVM, from.accel.accel)
			from.spec.From = &Template{&files.Template{Description: files.Description{Of: other}}}
			require.NoError(t, from.chooseAccel(t.Context(), prober))
			require.Equal(t, []any{TCG, "the template was saved under TCG", ""}, chosen(&from))
		})
	}
}

// On a host with a broken KVM the user waits for the probe once, and not for each kernel.
func TestKVMThatHasBootedNoKernelIsProbedAgainOnlyIfTheSpecAsksForIt(t *testing.T) {
	cache := t.TempDir()
	prober := newProber(cache)
	p, runs := fakeQEMU(t, `case "$*" in *kernel2*) `+boots+`;; esac; echo no MSR >&2; exit 1`)
	require.NoError(t, p.chooseAccel(t.Context(), prober))
	evidence := p.accel.evidence
	require.Contains(t, evidence, "without a byte on its console, QEMU ended: exit status 1")
	require.Equal(t, []any{TCG, "KVM is present but does not boot a guest", evidence}, chosen(p))

	second := asking(t, p, "")
	second.spec.Kernel, second.qemu.Kernel = second.spec.Kernel+"2", second.spec.Kernel+"2"
	require.NoError(t, os.WriteFile(second.qemu.Kernel, []byte("another"), 0o644))
	for name, later := range map[string]*kvm.Prober{"this process": prober, "another process": newProber(cache)} {
		q := *second
		require.NoError(t, q.chooseAccel(t.Context(), later), name)
		require.Equal(t, []any{TCG, "KVM is present but does not boot a guest", "with another kernel: " + evidence}, chosen(&q), name)
	}
	require.Equal(t, 1, runs())

	// This kernel boots under KVM, so the next one is probed.
	require.NoError(t, asking(t, second, KVM).chooseAccel(t.Context(), prober))
	require.Equal(t, 2, runs())
	third := asking(t, p, "")
	third.spec.Kernel, third.qemu.Kernel = third.spec.Kernel+"23", third.spec.Kernel+"23"
	require.NoError(t, os.WriteFile(third.qemu.Kernel, []byte("a third"), 0o644))
	require.NoError(t, third.chooseAccel(t.Context(), newProber(cache)))
	require.Equal(t, KVM, third.accel.accel)
	require.Equal(t, 3, runs())
}

// The result has the reason, and the recorded Spec has no Accel.
func TestAMachineStartsUnderTCGIfKVMBootsNothing(t *testing.T) {
	before := hostKVM
	hostKVM = newProber(t.TempDir())
	hostKVM.Within = 300 * time.Millisecond
	defer func() { hostKVM = before }()
	p, _ := fakeQEMUs(t, `echo this is "$*" >&2; exit 1`, "exec sleep 1000")
	s := minimal(t)
	s.QEMU, s.Dir = p.qemu.Binary, t.TempDir()
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

func TestNoAccelerationIsChosenAfterTheEndOfTheContext(t *testing.T) {
	p, _ := fakeQEMU(t, "exec sleep 1000")
	why := errors.New("changed their mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	require.ErrorIs(t, p.chooseAccel(ctx, newProber(t.TempDir())), why)
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
