package harness

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// A KVMError says why a machine does not run under KVM.
type KVMError struct {
	Target   string
	What     string // is wrong
	Evidence string // that shows it
	Hint     string // what to do
}

func (e *KVMError) Error() string {
	return fmt.Sprintf("kvm for %s: %s: %s; %s", e.Target, e.What, e.Evidence, e.Hint)
}

const useTCG = `without KVM, use acceleration "tcg", the default`

// ProbeKVM says whether the machine of a Spec runs under KVM: it returns the
// evidence that it does, or an error, which is a *KVMError where KVM is to blame.
// Of the Spec, Target, Kernel, Memory and QEMU count. What is cheap is checked
// always. Then the kernel is booted under KVM to its first byte on the console,
// for at most 10 s of QEMU's time, because there are hosts whose KVM passes
// every other check and boots nothing; that verdict is kept until
// the host boots again. Without a Kernel only the cheap checks are made.
//
// Start does this where a Spec asks for KVM.
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
	binary, err := p.findQEMU()
	if err != nil {
		return "", err
	}
	return kvm.check(ctx, p, binary)
}

// findQEMU returns the path of the emulator, or a *MissingQEMUError.
func (p *plan) findQEMU() (string, error) {
	binary, err := exec.LookPath(p.QEMU)
	if err == nil {
		return binary, nil
	}
	missing := &MissingQEMUError{Binary: p.QEMU, Err: err}
	if p.QEMU == p.target.QEMU {
		missing.Package = p.target.QEMUPackage
	}
	return "", missing
}

// A ladder is the checks of KVM, the cheap ones first. Its fields are what tests
// replace.
type ladder struct {
	device string
	host   string                 // the host's GOARCH
	create func(*os.File) error   // makes a virtual machine with the device
	within time.Duration          // of QEMU's time, for the first byte
	cache  func() (string, error) // the directory of verdicts, if there can be one

	mu       sync.Mutex
	verdicts map[verdictKey]verdict
}

var kvm = &ladder{
	device: "/dev/kvm", host: runtime.GOARCH, create: createVM, within: 10 * time.Second,
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
	fail := func(what string, err error, hint string) error {
		return &KVMError{Target: p.Target, What: what, Evidence: err.Error(), Hint: hint}
	}
	f, err := os.OpenFile(l.device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail("this host has no KVM", err, useTCG+"; else load the kernel's KVM module, or give the container or virtual machine the device")
	case err != nil:
		return fail("KVM cannot be opened", err, useTCG+"; else join the device's group, which often is kvm")
	}
	defer f.Close()
	if err := l.create(f); err != nil {
		return fail("KVM makes no machine", fmt.Errorf("%s: %w", l.device, err), useTCG)
	}
	if !slices.Contains(p.target.KVMHosts, l.host) {
		return fail("this host's processor does not run the target",
			fmt.Errorf("it is %s; the target runs on %s", l.host, strings.Join(p.target.KVMHosts, ", ")), useTCG)
	}
	return nil
}

// check goes up the whole ladder.
func (l *ladder) check(ctx context.Context, p *plan, binary string) (evidence string, err error) {
	if err := l.cheap(p); err != nil {
		return "", err
	}
	key, err := p.verdictKey(binary)
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", p.Target, err)
	}
	v, file, err := l.verdict(ctx, key, func() (verdict, error) { return l.boot(ctx, p, binary) })
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", p.Target, err)
	}
	if v.Boots {
		return v.Evidence, nil
	}
	hint := useTCG
	if file != "" {
		hint += "; to try once more remove " + quote(file)
	}
	return "", &KVMError{Target: p.Target, What: "KVM is present but does not boot a guest", Evidence: v.Evidence, Hint: hint}
}

// A verdict says whether a kernel booted under KVM.
type verdict struct {
	Boots    bool   `json:"boots"`
	Evidence string `json:"evidence"`
}

// A verdictKey is all on which a verdict depends.
type verdictKey struct {
	Host    string `json:"host"` // the boot of it
	QEMU    string `json:"qemu"` // path, size and time of the binary
	Kernel  string `json:"kernel"`
	Machine string `json:"machine"`
	CPU     string `json:"cpu"`
	Memory  int    `json:"memory_mib"`
}

// verdictFile is what the cache holds.
type verdictFile struct {
	Of verdictKey `json:"of"`
	verdict
}

func (p *plan) verdictKey(binary string) (key verdictKey, err error) {
	key = verdictKey{Machine: p.target.Machine, CPU: p.target.CPU, Memory: p.Memory}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return key, err
	}
	key.Host = strings.TrimSpace(string(boot))
	if key.QEMU, err = binaryIdentity(binary); err == nil {
		key.Kernel, err = hashes.of(p.Kernel)
	}
	return key, err
}

// verdict returns what is known of a key, and the file that holds it if one does;
// what is not known is found out, by one process at a time. A cache that cannot be
// written only means that the next process finds out again.
func (l *ladder) verdict(ctx context.Context, key verdictKey, find func() (verdict, error)) (v verdict, file string, err error) {
	text, err := json.Marshal(key)
	if err != nil {
		return v, "", err
	}
	dir, err := l.cache()
	if err == nil {
		err = os.MkdirAll(dir, 0o777)
	}
	if err == nil {
		file = filepath.Join(dir, fmt.Sprintf("%x.json", sha256.Sum256(text)))
		lock := flock.New(filepath.Join(dir, "lock"))
		defer lock.Close()
		_, err = lock.TryLockContext(ctx, 25*time.Millisecond)
		if ctx.Err() != nil {
			return v, "", context.Cause(ctx)
		}
	}
	if err != nil {
		file = ""
	}
	l.mu.Lock()
	v, known := l.verdicts[key]
	l.mu.Unlock()
	if known {
		return v, file, nil
	}
	if file != "" {
		var saved verdictFile
		text, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(text, &saved) == nil && saved.Of == key {
			return l.remember(key, saved.verdict), file, nil
		}
	}
	if v, err = find(); err != nil {
		return v, "", err
	}
	if file != "" && writeVerdict(file, verdictFile{key, v}) != nil {
		file = ""
	}
	return l.remember(key, v), file, nil
}

func (l *ladder) remember(key verdictKey, v verdict) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verdicts == nil {
		l.verdicts = make(map[verdictKey]verdict)
	}
	l.verdicts[key] = v
	return v
}

// writeVerdict writes a file at once; the lock is held.
func writeVerdict(file string, v verdictFile) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o666); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// boot boots the kernel alone, told to print as early as it can, to its first
// byte. QEMU's arguments of the user's own are left out: they may name
// what two machines must not share.
func (l *ladder) boot(ctx context.Context, p *plan, binary string) (verdict, error) {
	q := *p
	q.Accel, q.Initramfs, q.ports, q.Cmdline = KVM, "", nil, p.target.EarlyConsole
	stderr, err := newRAM(0) // a file without a name: nothing is left of it
	if err != nil {
		return verdict{}, err
	}
	defer stderr.Close()
	start := time.Now()
	proc, err := startProcess(binary, append(q.machineArgs(ownRAM), connectionArgs()...), stderr, nil, nil)
	if err != nil {
		return verdict{}, err
	}
	defer proc.monitor.Close()
	defer proc.agent.Close()
	console := newConsole(io.Discard, io.Discard)
	drained := make(chan struct{})
	go func() {
		console.drain(proc.console)
		proc.console.Close()
		close(drained)
	}()
	late := fmt.Errorf("the kernel printed nothing within %v", l.within)
	firstCtx, cancel := newClock(proc, start).until(ctx, moment{}, l.within, late)
	defer cancel()
	_, _, err = console.wait(firstCtx, anyByte, 0)
	took := time.Since(start)
	proc.kill()
	<-drained
	if ctx.Err() != nil {
		return verdict{}, context.Cause(ctx) // which says nothing of KVM
	}
	if err == nil {
		return verdict{true, fmt.Sprintf("the kernel's first byte came after %.1f s", took.Seconds())}, nil
	}
	if errors.Is(err, errConsoleEnded) {
		err = fmt.Errorf("without a byte on its console, %w", proc.describe())
	}
	evidence := err.Error()
	said, _ := io.ReadAll(io.NewSectionReader(stderr, 0, 4096))
	if text := strings.Join(strings.Fields(string(said)), " "); text != "" {
		evidence += ": " + text
	}
	return verdict{false, evidence}, nil
}
