package sys

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// IdleMeter measures how much of the host's processors nobody uses, from one look to the next.
type IdleMeter struct {
	stat string // /proc/stat; another file in tests
	at   time.Time
	idle time.Duration // of all processors, since the host's start
}

// hertz is USER_HZ, in which /proc/stat counts: 100 on every Linux that Go runs on.
const hertz = 100

// Read returns how many processors were idle on average since the last look. The first
// one only begins. It is not ok where the kernel does not tell.
func (i *IdleMeter) Read() (processors float64, ok bool) {
	file := i.stat
	if file == "" {
		file = "/proc/stat"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	return i.read(string(text), time.Now())
}

func (i *IdleMeter) read(stat string, now time.Time) (processors float64, ok bool) {
	// cpu  user nice system idle iowait …
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 6 || f[0] != "cpu" {
		return 0, false
	}
	var ticks int64
	for _, field := range f[4:6] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	idle, before, since := time.Duration(ticks)*(time.Second/hertz), i.idle, now.Sub(i.at)
	first := i.at.IsZero()
	i.at, i.idle = now, idle
	if first || since <= 0 {
		return 0, false
	}
	return max(0, (idle-before).Seconds()/since.Seconds()), true
}
