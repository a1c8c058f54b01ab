package share

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Line carries one request of the kernel to the harness and calls use with the answer, which is valid
// until use returns. Expect is the greatest length in bytes that the answer can have, as far as it is
// known. Several goroutines call it at once.
type Line func(request []byte, expect int, use func(answer []byte) error) error

const (
	// maxData is the largest read and write that the harness agrees to, in bytes.
	maxData = 1 << 20

	// workers is how many requests of a share are under way at once. Two overlap the kernel's reading
	// ahead with the work of the program; each is a thread.
	workers = 3
)

// A connection is one of the kernel's FUSE connections.
type connection struct {
	fd      int
	line    atomic.Pointer[Line] // nil: the directory is empty
	working atomic.Int32         // the workers that have not returned
}

// serve begins to serve a connection.
func serve(fd int) *connection {
	holdWorld()
	c := &connection{fd: fd}
	c.working.Store(workers)
	for range workers {
		go c.work()
	}
	return c
}

// use gives the connection the line to its harness.
func (c *connection) use(line Line) { c.line.Store(&line) }

// work carries requests until the file system is unmounted. A request that cannot be carried fails with
// EIO, so that no program waits forever. The last worker closes the connection.
func (c *connection) work() {
	defer func() {
		if c.working.Add(-1) == 0 {
			unix.Close(c.fd)
		}
	}()
	// Outside Go's heap, in which it would make the garbage collector work. Its pages exist when they are used.
	buf, err := unix.Mmap(-1, 0, maxData+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	defer unix.Munmap(buf)
	for {
		n, err := unix.Read(c.fd, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT: // ENOENT: the request was interrupted
			continue
		case err != nil || n < headerSize:
			return
		}
		c.carry(buf[:n])
		Collect()
	}
}

// carry answers a request.
func (c *connection) carry(request []byte) {
	line := c.line.Load()
	if answer, own := ownAnswer(request, line == nil); own {
		if answer != nil {
			unix.Write(c.fd, answer)
		}
		return
	}
	if (*line)(request, expect(request), func(answer []byte) error { return reply(c.fd, answer) }) != nil {
		unix.Write(c.fd, failed(request, unix.EIO)) // the kernel refuses it if the request needs no answer
	}
}

// The sizes in bytes of the headers, and the requests whose answers are long, by include/uapi/linux/fuse.h.
const (
	headerSize = 40
	replySize  = 16

	opRead        = 15
	opReaddirplus = 44
)

// order is the byte order of the kernel's messages: the machine's processors are all little-endian.
var order = binary.LittleEndian

// expect returns the length of an answer.
func expect(request []byte) int {
	switch op := order.Uint32(request[4:]); {
	case (op == opRead || op == opReaddirplus) && len(request) >= headerSize+20:
		return replySize + int(min(order.Uint32(request[headerSize+16:]), maxData))
	}
	return 256
}

var errAnswer = errors.New("malformed answer")

// reply hands the kernel an answer, which may be several messages. A message that the kernel refuses, because
// its request was interrupted, for example, is nobody's business.
func reply(fd int, answer []byte) error {
	for len(answer) > 0 {
		if len(answer) < replySize {
			return errAnswer
		}
		n := order.Uint32(answer)
		if n < replySize || uint64(n) > uint64(len(answer)) {
			return errAnswer
		}
		unix.Write(fd, answer[:n])
		answer = answer[n:]
	}
	return nil
}
