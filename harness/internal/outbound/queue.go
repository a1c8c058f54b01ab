package outbound

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxQueued is the most bytes of frames that wait for QEMU to read them.
const maxQueued = 1 << 20

// A queue writes frames to QEMU without waiting for QEMU, which may be blocked until the filter
// reads. Frames that exceed the limit are dropped, as by a full switch.
type queue struct {
	raw    syscall.RawConn
	filled chan struct{} // holds a token if frames wait; closed by end

	mu         sync.Mutex
	waiting    []byte // frames that deliver has not taken
	delivering bool   // deliver is writing frames that it has taken
}

// write writes complete frames. It queues for deliver the bytes that the socket has no room for.
func (q *queue) write(frames []byte) {
	if len(frames) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.delivering && len(q.waiting) == 0 {
		frames = frames[q.writeNow(frames):]
	} else if len(q.waiting)+len(frames) > maxQueued {
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

// writeNow writes as many bytes as the socket has room for, and returns their number. It is 0 if
// QEMU is gone.
func (q *queue) writeNow(frames []byte) (n int) {
	q.raw.Control(func(fd uintptr) {
		n, _ = unix.SendmsgN(int(fd), frames, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	return max(n, 0)
}

// end makes deliver return.
func (q *queue) end() { close(q.filled) }

// deliver writes queued frames until end is called or QEMU is gone.
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
