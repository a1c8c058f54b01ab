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
	slowHandler = time.Second // a handler that runs this long is logged
	looks       = 4           // within slowHandler
)

// A watchdog notices a handler that does not return, and sockets that the poller always
// reports as writable. It runs only while there are calls. It adds no cost to a call,
// because it reads only numbers that the loop keeps anyway.
type watchdog struct {
	slow     time.Duration
	timer    *time.Timer
	watching bool // the timer runs
	lookedAt uint64
	logged   uint64 // the serial number of the newest call that was logged as slow
	writable map[uint32]suspect
	warned   map[*Service]bool
}

// A suspect is a slot whose socket was only writable in a number of successive looks.
type suspect struct {
	gen   uint32
	times int
}

// watchOver starts the watchdog, which stops by itself.
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

// findWritable finds sockets that are always writable and have nothing to send. It looks at
// one round now and then, so a socket that it sees in successive looks is in every round.
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

// sends reports whether a socket has bytes that are not sent yet.
func sends(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err == nil && n > 0
}

// stackOf returns the stack of another goroutine. The runtime can only return the
// stacks of all.
func stackOf(goid uint64) string {
	const maxStacks = 64 << 20
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for ; n == len(buf) && n < maxStacks; n = runtime.Stack(buf, true) {
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
