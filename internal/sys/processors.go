package sys

import (
	"os"
	"strconv"
	"strings"
	"time"
)

const procStat = "/proc/stat"

// An IdleMeter measures how much of the host's processors is idle. Its zero value is ready to use.
type IdleMeter struct {
	file string // empty: procStat
	at   time.Time
	idle time.Duration // of all processors, since the host's boot
}

// Read returns how many processors were idle, on average since the previous Read. The first Read
// starts the measurement and is not ok.
func (m *IdleMeter) Read() (processors float64, ok bool) {
	file := m.file
	if file == "" {
		file = procStat
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	return m.read(string(text), time.Now())
}

func (m *IdleMeter) read(stat string, now time.Time) (processors float64, ok bool) {
	times := parseCPUTimes(stat)
	if len(times) == 0 || times[0].processor != allProcessors {
		return 0, false
	}
	idle, before, elapsed := times[0].idle, m.idle, now.Sub(m.at)
	first := m.at.IsZero()
	m.at, m.idle = now, idle
	if first || elapsed <= 0 {
		return 0, false
	}
	return max(0, (idle-before).Seconds()/elapsed.Seconds()), true
}

// StolenTime returns, for each processor, how long it ran other virtual machines while this host,
// a virtual machine itself, was ready to use it. The times count from the host's boot. The map is
// nil if the kernel does not report these times.
func StolenTime() map[int]time.Duration { return stolenTime(procStat) }

func stolenTime(file string) map[int]time.Duration {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	stolen := make(map[int]time.Duration)
	for _, t := range parseCPUTimes(string(text)) {
		if t.processor != allProcessors {
			stolen[t.processor] = t.stolen
		}
	}
	return stolen
}

// cpuTimes holds times of a processor, counted from the host's boot.
type cpuTimes struct {
	processor int // or allProcessors
	idle      time.Duration
	stolen    time.Duration
}

const allProcessors = -1 // cpuTimes that are the sums over all processors

// hertz is USER_HZ, the unit of /proc/stat: 100 on every Linux that Go runs on.
const hertz = 100

// parseCPUTimes parses the lines of /proc/stat that are about processors. The line of the sums is
// the first. Source: proc_stat(5).
func parseCPUTimes(stat string) (all []cpuTimes) {
	for line := range strings.Lines(stat) {
		// cpu0 user nice system idle iowait irq softirq steal …
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[0], "cpu") {
			break // the lines about processors come first
		}
		t := cpuTimes{processor: allProcessors}
		var err error
		if f[0] != "cpu" {
			if t.processor, err = strconv.Atoi(f[0][len("cpu"):]); err != nil {
				break
			}
		}
		var ticks [3]int64 // idle, iowait, steal
		for i, at := range []int{4, 5, 8} {
			if at < len(f) && err == nil {
				ticks[i], err = strconv.ParseInt(f[at], 10, 64)
			}
		}
		if err != nil {
			break
		}
		// A processor that waits for a disk is idle too.
		t.idle = time.Duration(ticks[0]+ticks[1]) * (time.Second / hertz)
		t.stolen = time.Duration(ticks[2]) * (time.Second / hertz)
		all = append(all, t)
	}
	return all
}
