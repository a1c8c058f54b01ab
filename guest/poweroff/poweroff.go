// Package poweroff ends the machine so that nothing of what it said is lost.
package poweroff

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Now powers the machine off when all that was written to the console has left its serial
// port. It returns only if the kernel refuses.
func Now(console *os.File) error {
	// At power-off Linux 6.1 marks the card's queues broken, and its driver's
	// poll function spins for ever when an answer is under way.
	if err := takeDown(); err != nil {
		fmt.Fprintln(console, "guesthouse: power off:", err)
	}
	for unix.IoctlSetInt(int(console.Fd()), unix.TCSBRK, 1) == unix.EINTR { // tcdrain(3)
	}
	unix.Sync()
	return os.NewSyscallError("reboot", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// takeDown takes all network interfaces down, also those after one that refuses.
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
