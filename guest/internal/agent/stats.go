package agent

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// Statistics returns the kernel's statistics. A program adds those of its socket services.
func Statistics() wire.Stats {
	s := wire.Stats{Boot: bootID()}
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		s.Uptime = time.Duration(up.Nano())
	}
	text, _ := os.ReadFile("/proc/meminfo") // without /proc the numbers are 0
	for line := range bytes.Lines(text) {
		var name string
		var kib uint64
		if n, _ := fmt.Sscan(string(line), &name, &kib); n == 2 {
			switch name {
			case "MemTotal:":
				s.MemoryTotal = kib << 10
			case "MemAvailable:":
				s.MemoryAvail = kib << 10
			}
		}
	}
	return s
}
