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
	scratch    []byte
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

// Start calls take for each frame that the guest sends, until QEMU or Close ends the line. The frame is valid
// until take returns.
func (p *Port) Start(take func(frame []byte)) { p.ended.Go(func() { Read(p.conn, take) }) }

// Read reads frames and calls take for each. It skips frames longer than QEMU accepts, which a guest can make its
// card send.
func Read(from io.Reader, take func(frame []byte)) error {
	r := bufio.NewReaderSize(from, bufferSize)
	for {
		length, err := r.Peek(lengthSize)
		if err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(length))
		r.Discard(lengthSize)
		if size > maxFrame {
			if _, err := io.CopyN(io.Discard, r, size); err != nil {
				return err
			}
			continue
		}
		frame, err := r.Peek(int(size))
		if err != nil {
			return err
		}
		take(frame)
		r.Discard(len(frame))
	}
}

// Write gives a frame to the guest's card. It never waits.
func (p *Port) Write(frame []byte) {
	if len(frame) == 0 || len(frame) > maxFrame {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if len(p.waiting)+lengthSize+len(frame) > maxQueued {
		p.dropped++
		return
	}
	if p.delivering || len(p.waiting) > 0 {
		p.waiting = append(binary.BigEndian.AppendUint32(p.waiting, uint32(len(frame))), frame...)
		return
	}
	p.scratch = append(binary.BigEndian.AppendUint32(p.scratch[:0], uint32(len(frame))), frame...)
	rest := p.scratch[p.writeNow(p.scratch):]
	if len(rest) == 0 {
		return
	}
	p.waiting = append(p.waiting, rest...)
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
