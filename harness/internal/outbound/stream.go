package outbound

import (
	"encoding/binary"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	lengthSize   = 4
	longestFrame = 68 << 10 // of those that QEMU's network takes (NET_BUFSIZE)
	bufferSize   = 2 * (lengthSize + longestFrame)
)

// A stream takes frames apart. One that is longer than QEMU would take, which a guest can make
// its card send, is left out.
type stream struct {
	buf        [bufferSize]byte
	start, end int
	skip       int // bytes to come of a frame that is too long
}

// room is where the next bytes go; there is some.
func (s *stream) room() []byte {
	s.end = copy(s.buf[:], s.buf[s.start:s.end])
	s.start = 0
	return s.buf[s.end:]
}

// frames hands over each frame that is whole after n more bytes. It is valid until take returns.
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
		case size > lengthSize+longestFrame:
			s.skip = size
		case size > len(there):
			return
		default:
			take(there[lengthSize:size])
			s.start += size
		}
	}
}

// An inbox reads frames when they come (watch), or at once for somebody who cannot wait for
// that (look).
type inbox struct {
	raw   syscall.RawConn
	take  func(frame []byte) // of each frame in turn
	batch func()             // after some of them

	mu     sync.Mutex
	stream stream
}

// watch reads until no more can come.
func (b *inbox) watch() { b.raw.Read(b.drain) }

// look reads what is there.
func (b *inbox) look() { b.raw.Control(func(fd uintptr) { b.drain(fd) }) }

// drain reads what is there and says whether no more can come.
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
