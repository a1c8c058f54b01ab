package socketservice

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	slowHandler = time.Second // a handler that runs so long is logged
	looks       = 4           // within this time
)

// A watchdog looks after the handlers while there are calls. A call costs it
// nothing but the numbers that the loop notes for itself. It sees a handler that
// does not return, and sockets that are reported writable without end.
type watchdog struct {
	slow     time.Duration
	timer    *time.Timer
	watching bool // the timer runs
	lookedAt uint64
	logged   uint64 // the serial number of the newest call that was logged as slow
	writable map[uint32]suspect
	warned   map[*Service]bool
}

// A suspect is a slot whose socket was reported writable, and nothing else, so
// many looks in a row.
type suspect struct {
	gen   uint32
	times int
}

// watchOver has the watchdog look from now on. It stops of itself.
func (l *Loop) watchOver() {
	if l.watching {
		return
	}
	l.watching = true
	if l.timer == nil {
		l.timer = time.AfterFunc(l.slow/looks, l.look)
	} else {
		l.timer.Reset(l.slow / looks)
	}
}

func (l *Loop) look() {
	l.mu.Lock()
	if l.running == nil && (l.state != running || l.serial == l.lookedAt) {
		l.watching, l.writable = false, nil
		l.mu.Unlock()
		return
	}
	next := l.slow / looks
	var lines []func()
	if s := l.running; s != nil && l.logged != l.serial {
		fd, goid, ran := l.runningFd, l.goid, l.clock()-l.begun
		if ran >= l.slow {
			l.logged = l.serial
			lines = append(lines, func() {
				l.record(slog.LevelWarn, "handler is slow: no other socket is served meanwhile", "service", s.name, "owner", s.Owner(),
					"fd", fd, "runs", ran, "stack", stackOf(goid))
			})
		} else {
			next = min(next, max(l.slow-ran, time.Millisecond))
		}
	}
	if l.serial != l.lookedAt {
		lines = append(lines, l.findWritable()...)
	}
	l.lookedAt = l.serial
	l.timer.Reset(next)
	l.mu.Unlock()
	for _, line := range lines {
		line()
	}
}

// findWritable looks among the sockets of the newest round for such as are only
// ever writable and send nothing. It looks at a round now and then, so it finds
// those that are in every one.
func (l *Loop) findWritable() (lines []func()) {
	const writable = unix.EPOLLOUT | unix.EPOLLWRNORM | unix.EPOLLWRBAND
	before := l.writable
	l.writable = nil
	for _, c := range l.ready {
		sl := l.slots.at(c.slot)
		s := l.services.at(sl.service)
		if c.revents&^writable != 0 || sl.gen != c.gen || l.warned[s] || sends(int(sl.fd)) {
			continue
		}
		times := 1
		if b := before[c.slot]; b.gen == c.gen {
			times += b.times
		}
		if times <= looks {
			if l.writable == nil {
				l.writable = map[uint32]suspect{}
			}
			l.writable[c.slot] = suspect{c.gen, times}
			continue
		}
		if l.warned == nil {
			l.warned = map[*Service]bool{}
		}
		l.warned[s] = true
		fd := sl.fd
		lines = append(lines, func() {
			l.record(slog.LevelWarn, "handler is called without end because its socket is writable:"+
				" poll for POLLOUT only while something waits to be sent", "service", s.name, "owner", s.Owner(), "fd", fd)
		})
	}
	return lines
}

// sends reports whether something is on its way out of a socket.
func sends(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err == nil && n > 0
}

// stackOf returns the stack of a goroutine other than the calling one. The
// runtime can only give all of them.
func stackOf(goid uint64) string {
	const most = 64 << 20
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for ; n == len(buf) && n < most; n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	head := fmt.Appendf(nil, "goroutine %d [", goid)
	for stack := range bytes.SplitSeq(buf[:n], []byte("\n\n")) {
		if bytes.HasPrefix(stack, head) {
			return string(stack)
		}
	}
	return "not found"
}
