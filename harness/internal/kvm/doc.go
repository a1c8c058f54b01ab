// Package kvm finds out whether KVM boots a guest's kernel on this host.
//
// The device /dev/kvm alone proves little. On some hosts KVM creates virtual machines that never print
// a byte. Other hosts emulate KVM in software, and a kernel boots many times slower than under TCG,
// QEMU's own emulation. A [Prober] therefore first checks the device, and then boots the kernel twice
// to the first byte on the console: under TCG and under KVM. KVM may take 2 s longer than TCG, and 10 s
// at most, in the machine's time.
//
// If KVM boots the kernel, the Prober also saves a machine, restores it in another QEMU and lets the kernel
// run to its end there, because nothing else proves that templates work under the KVM of this host.
//
// The verdict holds until the host boots again, for one QEMU binary, machine, CPU model and kernel.
// All processes of a user share it through files in the user's cache directory.
//
// The package does not choose the acceleration: package harness does.
package kvm
