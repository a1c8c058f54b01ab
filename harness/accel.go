package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/shellquote"
)

// A KVMError says why a machine does not run under KVM.
type KVMError struct {
	Target   string
	What     string // is wrong
	Evidence string // that shows it
	Cure     string // what would make KVM work; empty if nothing is known to
}

func (e *KVMError) Error() string { return e.Cause() + "; " + e.Hint() }

// Cause is the error without its hint.
func (e *KVMError) Cause() string {
	return fmt.Sprintf("kvm for %s: %s: %s", e.Target, e.What, e.Evidence)
}

// Hint says what can be done.
func (e *KVMError) Hint() string {
	const without = `ask for no acceleration, or for "tcg"`
	if e.Cure == "" {
		return without
	}
	return e.Cure + "; or " + without
}

// ProbeKVM says whether the machine of a Spec runs under KVM: it returns the
// evidence that it does, or an error, which is a *KVMError where KVM is to blame.
// Of the Spec, Target, Kernel and QEMU count. What is cheap is checked
// always. Then the kernel is booted to its first byte on the console, emulated and
// under KVM, where that may take 2 s longer, and 10 s at most, of QEMU's time: there are hosts
// whose KVM passes every other check and boots nothing, and others where it boots
// many times slower than emulation does. That verdict is kept until
// the host boots again. Without a Kernel only the cheap checks are made.
//
// Start does this where a Spec asks for KVM or leaves the acceleration open.
func ProbeKVM(ctx context.Context, s Spec) (evidence string, err error) {
	s.Accel = KVM
	if s.Kernel == "" {
		p, err := s.plan()
		if err != nil {
			return "", err
		}
		if err := kvm.cheap(p); err != nil {
			return "", err
		}
		return kvm.device + " makes machines; no kernel has been booted with it", nil
	}
	p, err := s.check()
	if err != nil {
		return "", err
	}
	if err := p.findQEMU(); err != nil {
		return "", err
	}
	return kvm.check(ctx, p, false)
}

// choose settles how the plan's machine is accelerated: as the Spec asks, and where
// it leaves that open by KVM if it boots the very kernel, else by TCG. An error is
// that of KVM which was asked for, or the end of ctx.
func (l *ladder) choose(ctx context.Context, p *plan) error {
	switch {
	case p.spec.Accel == TCG:
		p.use(choice{TCG, "asked for", ""})
		return nil
	case p.spec.Accel == KVM:
		evidence, err := l.check(ctx, p, false)
		p.use(choice{KVM, "asked for", evidence})
		return err
	case p.spec.Template != nil:
		p.use(choice{TCG, "that of templates", ""})
		return nil
	case len(p.spec.QEMUArgs) > 0:
		// They may forbid KVM, as -icount does, and the ladder does not boot with them.
		p.use(choice{TCG, "QEMU arguments of its own", ""})
		return nil
	}
	evidence, err := l.check(ctx, p, true)
	var failed *KVMError
	switch {
	case err == nil:
		p.use(choice{KVM, "it boots the kernel", evidence})
	case ctx.Err() != nil:
		return err
	case errors.As(err, &failed):
		p.use(choice{TCG, failed.What, failed.Evidence})
	default:
		p.use(choice{TCG, "KVM could not be tried", oneLine(err)})
	}
	return nil
}

// A ladder is the checks of KVM, the cheap ones first. Its fields are what tests
// replace.
type ladder struct {
	device string
	host   string                 // the host's GOARCH
	create func(*os.File) error   // makes a virtual machine with the device
	within time.Duration          // of QEMU's time, for the first byte
	later  time.Duration          // than emulated that byte may come
	cache  func() (string, error) // the directory of verdicts, if there can be one

	mu       sync.Mutex
	verdicts map[verdictKey]verdict
}

var kvm = &ladder{
	device: "/dev/kvm", host: runtime.GOARCH, create: createVM, within: 10 * time.Second, later: 2 * time.Second,
	cache: func() (string, error) {
		base, err := os.UserCacheDir()
		return filepath.Join(base, "guesthouse", "accel"), err
	},
}

// The ioctls of the device. Source: include/uapi/linux/kvm.h of Linux.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12 // since Linux 2.6.22, and for ever
)

func createVM(device *os.File) error {
	version, err := unix.IoctlRetInt(int(device.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("KVM_GET_API_VERSION: it is %d, not %d", version, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(int(device.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	return unix.Close(vm)
}

// cheap makes the checks that need no guest.
func (l *ladder) cheap(p *plan) error {
	fail := func(what string, err error, cure string) error {
		return &KVMError{Target: p.spec.Target, What: what, Evidence: err.Error(), Cure: cure}
	}
	if hosts := p.qemu.Target.KVMHosts; !slices.Contains(hosts, l.host) {
		if hosts == nil {
			hosts = []string{"no host"}
		}
		return fail("this host's KVM runs no "+p.spec.Target+" guests",
			fmt.Errorf("the host is %s; KVM runs them on %s", l.host, strings.Join(hosts, ", ")), "")
	}
	f, err := os.OpenFile(l.device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail("this host has no KVM", err, "load the kernel's KVM module, or give the container or virtual machine the device")
	case err != nil:
		return fail("KVM cannot be opened", err, "join the device's group, which often is kvm")
	}
	defer f.Close()
	if err := l.create(f); err != nil {
		return fail("KVM makes no machine", fmt.Errorf("%s: %w", l.device, err), "")
	}
	return nil
}

// check goes up the whole ladder. Where KVM has booted no kernel at all and has
// failed with another one, it is not tried again if doubt will do: a host whose KVM
// lies costs its deadline once, and not for each kernel that somebody builds.
func (l *ladder) check(ctx context.Context, p *plan, doubt bool) (evidence string, err error) {
	if err := l.cheap(p); err != nil {
		return "", err
	}
	key, err := p.verdictKey()
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", p.spec.Target, err)
	}
	v, err := l.verdict(ctx, key, doubt, func() (verdict, error) { return l.boot(ctx, p) })
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", p.spec.Target, err)
	}
	if v.Boots {
		return v.Evidence, nil
	}
	cure := ""
	if v.file != "" {
		cure = "to try once more remove " + shellquote.Word(v.file)
	}
	return "", &KVMError{Target: p.spec.Target, What: "KVM is present but does not boot a guest", Evidence: v.Evidence, Cure: cure}
}

// boot boots the kernel emulated, to see how long that takes, and under KVM. Of a kernel that
// says nothing emulated nobody knows how long it takes.
func (l *ladder) boot(ctx context.Context, p *plan) (verdict, error) {
	within, compared := l.within, ""
	emulated, err := tryBoot(ctx, p, TCG, within)
	if err != nil {
		return verdict{}, err
	}
	if emulated.silent == nil {
		within = min(within, emulated.took+l.later)
		compared = fmt.Sprintf(" (emulated: %.2f s)", emulated.took.Seconds())
	}
	accelerated, err := tryBoot(ctx, p, KVM, within)
	if err != nil {
		return verdict{}, err
	}
	if accelerated.silent != nil {
		return verdict{Evidence: accelerated.silent.Error() + compared + accelerated.said}, nil
	}
	return verdict{Boots: true, Evidence: fmt.Sprintf("the kernel's first byte came after %.2f s%s", accelerated.took.Seconds(), compared)}, nil
}

// tried is how much of QEMU's time passed up to the kernel's first byte on the console,
// or why there was none, with QEMU's words after a colon, if it said any.
type tried struct {
	took   time.Duration
	silent error
	said   string
}

// tryBoot boots the kernel alone, told to print as early as it can, to its first byte.
// QEMU's arguments of the user's own are left out: they may name what two machines
// must not share. The error is the end of ctx, or what kept QEMU from being started.
func tryBoot(ctx context.Context, p *plan, accel Accel, within time.Duration) (t tried, err error) {
	q := p.qemu
	q.KVM, q.Initramfs, q.Cmdline = accel == KVM, "", q.Target.EarlyConsole
	q.Memory = max(q.Memory, defaultMemory) // its size is not in question
	stderr, err := qemu.NewRAM(0)           // a file without a name: nothing is left of it
	if err != nil {
		return t, err
	}
	defer stderr.Close()
	start := time.Now()
	proc, err := q.StartProbe(stderr)
	if err != nil {
		return t, err
	}
	defer proc.Monitor.Close()
	defer proc.Agent.Close()
	defer proc.Console.Close()
	line := console.New(proc.Console, console.Options{})
	clock := machinetime.New(proc.PID(), proc.Done, start)
	late := fmt.Errorf("the kernel printed nothing within %.2f s", within.Seconds())
	firstCtx, cancel := clock.WithDeadline(ctx, machinetime.Moment{}, within, late)
	defer cancel()
	t.silent = line.WaitByte(firstCtx)
	t.took = clock.Now().Machine
	proc.Kill()
	<-line.Done()
	if ctx.Err() != nil {
		return t, context.Cause(ctx) // which says nothing of KVM
	}
	if errors.Is(t.silent, console.ErrEnded) {
		t.silent = fmt.Errorf("without a byte on its console, %w", proc.Describe())
	}
	said, _ := io.ReadAll(io.NewSectionReader(stderr, 0, 4096))
	if text := strings.Join(strings.Fields(string(said)), " "); text != "" {
		t.said = ": " + text
	}
	return t, nil
}
