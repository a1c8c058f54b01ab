package shell

import (
	"fmt"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

type command struct {
	name string // one word or more
	help string
	run  func(s *Shell, args string) error
}

// commands returns the table of commands. It is a function because the command help reads the table.
func commands() []command {
	return []command{
		{"help", "list the commands", plain(help)},
		{"net sockets", "list the socket services and their sockets", plain(netSockets)},
		{"net stats", "show the counters of the socket services", plain(netStats)},
		{"net iface", "list the network interfaces and their addresses", plain(netIface)},
		{"uptime", "show the time since boot", plain(uptime)},
		{"sh", "start u-root's shell, gosh (exit 0 ends it), or run the command after sh", sh},
		{"poweroff", "power the machine off", plain(func(*Shell) error { return errPowerOff })},
	}
}

// plain returns a command that takes no arguments.
func plain(run func(*Shell) error) func(*Shell, string) error {
	return func(s *Shell, args string) error {
		if args != "" {
			return fmt.Errorf("takes no arguments, got %q", args)
		}
		return run(s)
	}
}

func help(s *Shell) error {
	return s.table(func(w *tabwriter.Writer) {
		for _, c := range commands() {
			fmt.Fprintf(w, "  %s\t%s\n", c.name, c.help)
		}
	})
}

// netSockets shows each service's name, sockets and slots, descriptors, place of definition, and
// counters.
func netSockets(s *Shell) error {
	return s.table(func(w *tabwriter.Writer) {
		n := 0
		for svc := range socketservice.All() {
			fds := svc.Sockets()
			var list strings.Builder
			for _, fd := range fds {
				fmt.Fprintf(&list, " %d", fd.Fd)
			}
			st := svc.Stats()
			fmt.Fprintf(w, "%s\t%s of %d\tfd%s\t%s\t%s, %s in %s, longest %s\n", svc.Name(), count(len(fds), "socket"), svc.Slots(),
				list.String(), svc.Owner(), count(int(st.Calls), "call"), count(int(st.Errors), "error"),
				st.Time.Round(time.Microsecond), st.MaxTime.Round(time.Microsecond))
			n++
		}
		fmt.Fprintln(w, count(n, "service"))
	})
}

// netStats shows for each service the calls of its handler, their total time, the longest call, and
// the errors.
func netStats(s *Shell) error {
	return s.table(func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "service\tcalls\ttime\tlongest\terrors\tdefined at")
		for svc := range socketservice.All() {
			st := svc.Stats()
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\n", svc.Name(), st.Calls,
				st.Time.Round(time.Microsecond), st.MaxTime.Round(time.Microsecond), st.Errors, svc.Owner())
		}
	})
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func netIface(s *Shell) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	return s.table(func(w *tabwriter.Writer) {
		for _, i := range all {
			fmt.Fprintf(w, "%s\t%s\tmtu %d\t%s\n", i.Name, i.Flags, i.MTU, i.HardwareAddr)
			addrs, _ := i.Addrs()
			for _, a := range addrs {
				fmt.Fprintf(w, "  %s\n", a)
			}
		}
	})
}

// uptime prints the line of Zephyr's "kernel uptime".
func uptime(s *Shell) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	fmt.Fprintf(s, "Uptime: %d ms\n", now.Nano()/1e6)
	return nil
}

func sh(s *Shell, command string) error {
	if command == "" {
		return s.foreground("/bin/sh")
	}
	return s.foreground("/bin/sh", "-c", command)
}

// table aligns columns that are separated by tabs and writes the lines at once.
func (s *Shell) table(fill func(*tabwriter.Writer)) error {
	w := tabwriter.NewWriter(s, 0, 0, 2, ' ', 0)
	fill(w)
	return w.Flush()
}
