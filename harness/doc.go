// Package harness boots a guest in an emulated machine, reaches its network
// services and reads its console. It is for tests that want the real thing, a
// kernel and a network card, in a second or two and without root; the
// testing.TB layer is package harnesstest.
//
// The nouns are few: a [Spec] says what to boot, [Boot] boots it, a [Machine]
// runs. Dial reaches the guest's ports, Console says what it printed and types
// into it, Shutdown and Close end it:
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
// A QEMU process never outlives the process that booted it, however that one
// ends.
//
// The package takes files and never builds them (package images does), and it
// is no general front end of QEMU: a machine has one processor, one
// network card and one serial console. It runs on Linux.
package harness
