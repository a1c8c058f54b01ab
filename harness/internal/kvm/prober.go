package kvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/shellquote"
)

// A Prober probes a host's KVM. NewProber returns a Prober for this host; tests change its fields. Its
// methods may be called from any goroutine.
type Prober struct {
	Device   string
	HostArch string                 // as GOARCH
	CreateVM func(*os.File) error   // creates a virtual machine with the open device
	Within   time.Duration          // how long the first byte may take, in the machine's time
	Margin   time.Duration          // how much longer it may take under KVM than under TCG
	CacheDir func() (string, error) // where verdicts are cached

	// Restore saves and restores a machine with the acceleration that it names, within a time for each of
	// both. A nil Restore restores nothing.
	Restore func(ctx context.Context, m qemu.Machine, within time.Duration) error

	mu       sync.Mutex
	verdicts map[key]verdict // the verdicts that this process has found or loaded
}

// NewProber returns a prober for this host.
func NewProber() *Prober {
	return &Prober{
		Device: "/dev/kvm", HostArch: runtime.GOARCH, CreateVM: createVM,
		Within: 10 * time.Second, Margin: 2 * time.Second, Restore: saveAndRestore,
		CacheDir: func() (string, error) {
			base, err := os.UserCacheDir()
			return filepath.Join(base, "guesthouse", "accel"), err
		},
	}
}

// Probe returns the evidence that KVM boots the kernel of a machine. If KVM does not boot it, the error
// is an *Error. Any other error, such as the end of ctx, says nothing about KVM. Probe ignores the
// machine's acceleration, initramfs, network and user arguments.
//
// If presume is true, and KVM has failed with another kernel on such a machine and booted none, Probe
// presumes that KVM fails with this kernel too. On a host with a broken KVM, the user then waits for
// the deadline once, and not after each change of the kernel.
//
// Without a kernel, Probe only checks the device.
func (p *Prober) Probe(ctx context.Context, m qemu.Machine, presume bool) (evidence string, err error) {
	if err := p.checkDevice(m.Target); err != nil {
		return "", err
	}
	if m.Kernel == "" {
		return p.Device + " creates virtual machines; no kernel has been booted with it", nil
	}
	k, err := keyOf(m)
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", m.Target.Name, err)
	}
	v, err := p.verdict(ctx, k, presume, func() (verdict, error) { return p.compare(ctx, m) })
	if err != nil {
		return "", fmt.Errorf("kvm for %s: %w", m.Target.Name, err)
	}
	if v.Boots {
		return v.Evidence, nil
	}
	cure := ""
	if v.file != "" {
		cure = "to probe KVM again, remove " + shellquote.Word(v.file)
	}
	return "", &Error{Target: m.Target.Name, What: "KVM is present but does not boot a guest", Evidence: v.Evidence, Cure: cure}
}

// Restores returns nil if a machine with the kernel of m was saved and restored under KVM, in the probe that
// has found that KVM boots the kernel. Otherwise the error says why not. Restores itself starts no machine.
func (p *Prober) Restores(m qemu.Machine) error {
	k, err := keyOf(m)
	if err != nil {
		return err
	}
	switch v, known := p.known(k, false); {
	case !known || !v.Boots:
		return errors.New("KVM has not booted the kernel")
	case v.NotRestored != "":
		return errors.New(v.NotRestored)
	}
	return nil
}
