// Package poweroff ends the machine so that nothing of what it said is lost.
package poweroff

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// drainWithin bounds the wait for a serial port that takes nothing. An emulated one may be as slow
// as 20 kB/s, and a terminal holds 4 KiB.
const drainWithin = 5 * time.Second

// Now writes the machine's last words to the console, waits until they and all that was written
// there before have left its serial port, and powers the machine off. A console that takes nothing
// costs 5 s. Now returns only if the kernel refuses.
func Now(console *os.File, words string) error {
	// Somebody may have typed Ctrl-S. Linux resumes only what it was told to suspend.
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
	// At power-off Linux 6.1 marks the card's queues broken, and its driver's
	// poll function spins for ever when an answer is under way.
	if err := takeDown(); err != nil {
		fmt.Fprintln(console, "guesthouse: power off:", err)
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
