// Package harness boots a guest in an emulated machine, connects to its network
// services and reads its console. It is for tests that need a real kernel and a
// real network card, without root. Package harnesstest is its layer for
// testing.TB.
//
// A [Spec] describes a machine, [Boot] boots it, and a [Machine] runs. Dial
// connects to the guest's ports, Console returns what the guest printed and types
// into it, Shutdown and Close end the machine:
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
// The package boots files and never builds them; package images does. It is no
// general front end of QEMU: a machine has one processor, one network card and one
// serial console. It runs on Linux.
package harness
