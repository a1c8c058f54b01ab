// Package qemuport exchanges frames with a network card of QEMU over a socket (-netdev stream). Each frame follows
// its length, which is four bytes in network order.
package qemuport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	lengthSize = 4
	maxFrame   = 68 << 10  // bytes of the longest frame that QEMU accepts (NET_BUFSIZE)
	bufferSize = 128 << 10 // bytes to read at once

	// maxQueued bounds the bytes of frames that wait until QEMU reads them. Later frames are dropped, as by a card
	// that nobody reads, so a stopped guest never holds up the others.
	maxQueued = 1 << 20
)

// A Port is the harness's end of a card's line.
type Port struct {
	conn   net.Conn
	raw    syscall.RawConn
	filled chan struct{} // holds a token if frames wait; closed by Close
	ended  sync.WaitGroup

	mu         sync.Mutex
	waiting    []byte // frames that deliver has not taken
	delivering bool   // deliver is writing frames that it has taken
	closed     bool
	dropped    uint64
}

// New returns the port of a card whose QEMU has the other end of conn. It writes at once, and Start makes it read.
func New(conn net.Conn) (*Port, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("lan: %T has no descriptor", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &Port{conn: conn, raw: raw, filled: make(chan struct{}, 1)}
	p.ended.Go(p.deliver)
	return p, nil
}

// Start calls take for the frames that the guest sends, until QEMU or Close ends the line. The frames are valid
// until take returns.
func (p *Port) Start(take func(frames ...[]byte)) { p.ended.Go(func() { Read(p.conn, take) }) }

// Read reads frames and calls take for those that have come together. It skips frames longer than QEMU accepts, which
// a guest can make its card send.
func Read(from io.Reader, take func(frames ...[]byte)) error {
	r := bufio.NewReaderSize(from, bufferSize)
	var frames [][]byte
	for {
		length, err := r.Peek(lengthSize)
		if err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(length))
		if size > maxFrame {
			if _, err := io.CopyN(io.Discard, r, lengthSize+size); err != nil {
				return err
			}
			continue
		}
		if _, err := r.Peek(lengthSize + int(size)); err != nil {
			return err
		}
		come, _ := r.Peek(r.Buffered())
		frames, size = split(frames[:0], come)
		take(frames...)
		r.Discard(int(size))
	}
}

// split appends the whole frames at the beginning of a stream to frames, up to one that is too long. It returns also
// how many bytes of the stream they are.
func split(frames [][]byte, stream []byte) (all [][]byte, taken int64) {
	for rest := stream; len(rest) >= lengthSize; {
		size := binary.BigEndian.Uint32(rest)
		if size > maxFrame || len(rest) < lengthSize+int(size) {
			break
		}
		frames = append(frames, rest[lengthSize:lengthSize+size])
		rest = rest[lengthSize+size:]
		taken += lengthSize + int64(size)
	}
	return frames, taken
}

// Write gives frames to the guest's card. It never waits. QEMU reads the frames of a call together, if it can, so the
// guest takes them with one interrupt, and joins the segments of a TCP stream.
func (p *Port) Write(frames ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	others := p.delivering || len(p.waiting) > 0
	for _, frame := range frames {
		switch {
		case len(frame) == 0 || len(frame) > maxFrame:
		case len(p.waiting)+lengthSize+len(frame) > maxQueued:
			p.dropped++
		default:
			p.waiting = append(binary.BigEndian.AppendUint32(p.waiting, uint32(len(frame))), frame...)
		}
	}
	if others || len(p.waiting) == 0 {
		return
	}
	p.waiting = p.waiting[:copy(p.waiting, p.waiting[p.writeNow(p.waiting):])]
	if len(p.waiting) == 0 {
		return
	}
	select {
	case p.filled <- struct{}{}:
	default:
	}
}

// writeNow writes as many bytes as the socket has room for, and returns their number.
func (p *Port) writeNow(frames []byte) (n int) {
	p.raw.Control(func(fd uintptr) {
		n, _ = unix.SendmsgN(int(fd), frames, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	return max(n, 0)
}

// deliver writes the frames that wait, until Close or until QEMU is gone.
func (p *Port) deliver() {
	var frames []byte
	for range p.filled {
		for {
			p.mu.Lock()
			frames, p.waiting = p.waiting, frames[:0]
			p.delivering = len(frames) > 0
			p.mu.Unlock()
			if len(frames) == 0 {
				break
			}
			if _, err := p.conn.Write(frames); err != nil {
				return
			}
		}
	}
}

// Dropped returns the number of frames that were dropped because QEMU did not read.
func (p *Port) Dropped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Close closes the line and waits until no frame is taken any more. It may be called more than once.
func (p *Port) Close() {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	if !closed {
		close(p.filled)
	}
	p.mu.Unlock()
	p.conn.Close()
	p.ended.Wait()
}
