// Package harness boots a guest in an emulated machine, connects to its network
// services and reads its console. It is for tests that need a real kernel and a
// real network card, without root. Package harnesstest is its layer for
// testing.TB.
//
// A [Spec] describes a machine, and [Boot] boots it and returns a [Machine]. Its
// method Dial connects to the guest's ports, Console returns the guest's console,
// and Shutdown and Close end the machine:
//
//	m, err := harness.Boot(ctx, harness.Spec{
//		Target: "x86_64", Kernel: kernel, Initramfs: initramfs,
//		Ports: []string{"udp/4242"},
//	})
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	conn, err := m.Dial(ctx, "udp", 4242)
//
// A QEMU process never outlives the process that booted it, however that process
// ends.
//
// The package boots a kernel and an initramfs; package images builds them. It is no
// general front end of QEMU: a machine has one network card and one serial console.
// The package needs a Linux host.
package harness
