package outbound

import (
	"encoding/binary"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	lengthSize = 4
	maxFrame   = 68 << 10 // bytes of the longest frame that QEMU's network accepts (NET_BUFSIZE)
	bufferSize = 2 * (lengthSize + maxFrame)
)

// A stream splits what QEMU writes into frames. It skips frames longer than maxFrame, which a guest
// can make its card send.
type stream struct {
	buf        [bufferSize]byte
	start, end int // of the bytes in buf that are not split yet
	skip       int // bytes still to come of a frame that is skipped
}

// room returns the part of the buffer for the next bytes, which is never empty.
func (s *stream) room() []byte {
	s.end = copy(s.buf[:], s.buf[s.start:s.end])
	s.start = 0
	return s.buf[s.end:]
}

// frames splits the buffer after n more bytes were read into room, and calls take for each complete
// frame. The frame is valid until take returns.
func (s *stream) frames(n int, take func(frame []byte)) {
	s.end += n
	for {
		skipped := min(s.skip, s.end-s.start)
		s.start, s.skip = s.start+skipped, s.skip-skipped
		there := s.buf[s.start:s.end]
		if len(there) < lengthSize {
			return
		}
		size := lengthSize + int(binary.BigEndian.Uint32(there))
		switch {
		case size > lengthSize+maxFrame:
			s.skip = size
		case size > len(there):
			return
		default:
			take(there[lengthSize:size])
			s.start += size
		}
	}
}

// An inbox reads the frames that QEMU writes to one connection.
type inbox struct {
	raw   syscall.RawConn
	take  func(frame []byte) // called for each frame
	batch func()             // called after the frames of each read

	mu     sync.Mutex // held while take and batch run
	stream stream
}

// watch reads frames until QEMU closes its end.
func (b *inbox) watch() { b.raw.Read(b.drain) }

// readAvailable reads the frames that QEMU has written so far, and does not wait for more.
func (b *inbox) readAvailable() { b.raw.Control(func(fd uintptr) { b.drain(fd) }) }

// drain reads what QEMU has written so far, and reports whether QEMU has closed its end.
func (b *inbox) drain(fd uintptr) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		n, err := unix.Read(int(fd), b.stream.room())
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false
		case err != nil || n == 0:
			return true
		default:
			b.stream.frames(n, b.take)
			b.batch()
		}
	}
}
