package agent

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
	"guesthouse.example/internal/wire"
)

// statistics asks the kernel and the socket services.
func statistics() wire.Stats {
	s := wire.Stats{Boot: bootID(), Services: services()}
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		s.Uptime = time.Duration(up.Nano())
	}
	text, _ := os.ReadFile("/proc/meminfo") // without /proc the figures are 0
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

func services() (list []wire.Service) {
	for svc := range socketservice.All() {
		st := svc.Stats()
		list = append(list, wire.Service{Name: svc.Name(), Sockets: uint32(len(svc.Sockets())),
			Calls: st.Calls, Errors: st.Errors, Time: st.Time, MaxTime: st.MaxTime})
	}
	return list
}
