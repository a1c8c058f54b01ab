// Package kvm finds out whether KVM boots a guest's kernel on this host.
//
// That /dev/kvm exists proves little. There are hosts whose KVM creates virtual machines that never
// print a byte, and hosts that emulate KVM in software, where a kernel boots many times slower than
// under TCG, QEMU's own emulation. A [Prober] therefore boots the kernel itself, after a check of
// the device that costs nothing: once under TCG and once under KVM, each time to the first byte on
// the console. KVM may take 2 s longer than TCG, and 10 s at most, in the machine's time.
//
// The verdict holds until the host boots again, for one QEMU binary, machine, CPU model and kernel.
// All processes of a user share it through files in the user's cache directory.
//
// The package chooses no acceleration. Package harness does, from what a Prober tells.
package kvm
