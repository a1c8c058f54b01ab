package kvm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/target"
)

// checkDevice checks the host's processor and the device, without a guest. The error is an *Error.
func (p *Prober) checkDevice(t target.Target) error {
	fail := func(what string, evidence error, cure string) error {
		return &Error{Target: t.Name, What: what, Evidence: evidence.Error(), Cure: cure}
	}
	if hosts := t.KVMHosts; !slices.Contains(hosts, p.HostArch) {
		if hosts == nil {
			hosts = []string{"no host"}
		}
		return fail("this host's KVM runs no "+t.Name+" guests",
			fmt.Errorf("the host is %s; KVM runs them on %s", p.HostArch, strings.Join(hosts, ", ")), "")
	}
	f, err := os.OpenFile(p.Device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail("this host has no KVM", err, "load the kernel's KVM module, or give the container or virtual machine the device")
	case err != nil:
		return fail("KVM cannot be opened", err, "join the device's group, which often is kvm")
	}
	defer f.Close()
	if err := p.CreateVM(f); err != nil {
		return fail("KVM creates no virtual machine", fmt.Errorf("%s: %w", p.Device, err), "")
	}
	return nil
}

// The ioctls of the device. Source: include/uapi/linux/kvm.h of Linux.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12 // since Linux 2.6.22, and it never changes again
)

func createVM(device *os.File) error {
	version, err := unix.IoctlRetInt(int(device.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("KVM_GET_API_VERSION: the version is %d, not %d", version, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(int(device.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	return unix.Close(vm)
}
