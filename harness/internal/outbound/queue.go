package outbound

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// mostQueued bounds the frames that are queued for QEMU, in bytes.
const mostQueued = 1 << 20

// A queue writes frames to QEMU and never waits for it: QEMU may just wait until we read, and
// reads nothing meanwhile. Frames without room are dropped, as a switch does.
type queue struct {
	raw    syscall.RawConn
	filled chan struct{} // holds a token if something waits; closed at the end

	mu         sync.Mutex
	waiting    []byte
	delivering bool // what waited before
}

// write writes whole frames, or leaves to deliver those for which there is no room yet.
func (q *queue) write(frames []byte) {
	if len(frames) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.delivering && len(q.waiting) == 0 {
		frames = frames[q.writeNow(frames):]
	} else if len(q.waiting)+len(frames) > mostQueued {
		return
	}
	if len(frames) == 0 {
		return
	}
	q.waiting = append(q.waiting, frames...)
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// writeNow writes as much as there is room for; nothing to a QEMU that is gone.
func (q *queue) writeNow(frames []byte) (n int) {
	q.raw.Control(func(fd uintptr) {
		n, _ = unix.SendmsgN(int(fd), frames, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	return max(n, 0)
}

// end lets deliver return.
func (q *queue) end() { close(q.filled) }

// deliver writes what waits, until the end or until QEMU is gone.
func (q *queue) deliver(to io.Writer) {
	var frames []byte
	for range q.filled {
		for {
			q.mu.Lock()
			frames, q.waiting = q.waiting, frames[:0]
			q.delivering = len(frames) > 0
			q.mu.Unlock()
			if len(frames) == 0 {
				break
			}
			if _, err := to.Write(frames); err != nil {
				return
			}
		}
	}
}
