// Package poweroff powers the machine off without losing console output.
package poweroff

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// drainWithin bounds the wait for a serial port to send its output. An emulated port may be as slow as
// 20 kB/s, and a terminal holds 4 KiB.
const drainWithin = 5 * time.Second

// Now writes the last words to the console, waits until the serial port has sent all output, and
// powers the machine off. It waits at most 5 s for the output. It returns only if the kernel refuses
// the power-off.
func Now(console *os.File, words string) error {
	// A person may have stopped the output with Ctrl-S. Linux obeys TCOON only after a TCOOFF.
	for _, action := range []int{unix.TCOOFF, unix.TCOON} {
		unix.IoctlSetInt(int(console.Fd()), unix.TCXONC, action)
	}
	drained := make(chan struct{})
	go func() {
		console.WriteString(words)
		for unix.IoctlSetInt(int(console.Fd()), unix.TCSBRK, 1) == unix.EINTR { // tcdrain(3)
		}
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainWithin):
	}
	// At power-off, Linux 6.1 marks the network card's queues as broken. If the card is just sending a
	// packet, the driver's poll function then spins forever.
	if err := takeDown(); err != nil {
		fmt.Fprintln(console, "guesthouse: power off:", err)
	}
	unix.Sync()
	return os.NewSyscallError("reboot", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// takeDown takes all network interfaces down, even if one of them fails.
func takeDown() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		if err := netlink.LinkSetDown(link); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: down: %w", link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
