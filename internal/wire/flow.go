package wire

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// The flow of a command's streams. The receiver of a stream has a Window of memory for it. The sender
// may send so many bytes, and then as many as the receiver has given away and announced by Credit. So a
// stream that nobody reads holds up nothing else on the line, and takes a bounded amount of memory.
const (
	// Window is the number of bytes that may be on their way on a stream, or wait to be read.
	Window = 256 << 10

	// MaxData is the length limit in bytes of a Data message, without its stream. A frame of that
	// length is 32 KiB long: the guest's driver sends no more at once.
	MaxData = 32<<10 - headerSize - 1
)

// An Allowance is what the sender of a stream may still send.
type Allowance struct {
	mu     sync.Mutex
	more   *sync.Cond
	left   int
	closed bool
}

// NewAllowance returns the Allowance of a new stream.
func NewAllowance() *Allowance {
	a := &Allowance{left: Window}
	a.more = sync.NewCond(&a.mu)
	return a
}

// Take waits until something may be sent, and returns how many bytes, at most n and MaxData. It returns 0
// after Close.
func (a *Allowance) Take(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.left == 0 && !a.closed {
		a.more.Wait()
	}
	if a.closed {
		return 0
	}
	n = min(n, a.left, MaxData)
	a.left -= n
	return n
}

// Return gives back what was taken and not sent.
func (a *Allowance) Return(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left += n
	a.more.Broadcast()
}

// Grant adds what the receiver has announced. It fails if the receiver announces more than it was sent.
func (a *Allowance) Grant(n uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if uint64(a.left)+uint64(n) > Window {
		return fmt.Errorf("credit of %d bytes: the window is %d, and %d are left", n, Window, a.left)
	}
	a.left += int(n)
	a.more.Broadcast()
	return nil
}

// Close makes Take return 0.
func (a *Allowance) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.more.Broadcast()
}

// An Inbox holds what has arrived on a stream and was not read. Receive never waits, so the goroutine that
// receives all messages can call it. Only one goroutine may read.
type Inbox struct {
	grant func(n int) // announces Credit

	mu      sync.Mutex
	more    *sync.Cond
	data    []byte // a part of buf
	buf     []byte
	pending int   // read, and not announced
	end     error // what Read returns after the data
	dropped bool  // CloseRead was called
}

// NewInbox returns the Inbox of a new stream. Read calls grant, which may wait.
func NewInbox(grant func(n int)) *Inbox {
	b := &Inbox{grant: grant}
	b.more = sync.NewCond(&b.mu)
	return b
}

// Receive takes over what has arrived. It fails if the sender exceeds its window, or has closed the stream.
func (b *Inbox) Receive(p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.dropped:
		return nil
	case b.end != nil:
		return errors.New("data after the end of a stream")
	case len(b.data)+b.pending+len(p) > Window:
		return fmt.Errorf("%d bytes of a stream whose window has %d left", len(p), Window-b.pending-len(b.data))
	}
	if len(b.data) == 0 {
		b.data = b.buf[:0]
	}
	if cap(b.data)-len(b.data) < len(p) { // move the data to the beginning, or to a larger buffer
		if need := len(b.data) + len(p); need > len(b.buf) {
			b.buf = make([]byte, min(max(need, 2*len(b.buf)), Window))
		}
		b.data = b.buf[:copy(b.buf, b.data)]
	}
	b.data = append(b.data, p...)
	b.more.Broadcast()
	return nil
}

// End says that no more will arrive. After the data, Read returns err, for example io.EOF. Only the first End
// counts.
func (b *Inbox) End(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end == nil {
		b.end = err
		b.more.Broadcast()
	}
}

// Ended reports whether End or CloseRead was called.
func (b *Inbox) Ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end != nil
}

// CloseRead drops all data, and all that arrives later. Read returns io.ErrClosedPipe.
func (b *Inbox) CloseRead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped = true
	b.data, b.buf = nil, nil
	b.end = io.ErrClosedPipe
	b.more.Broadcast()
}

// Read reads what has arrived, and waits while there is nothing.
func (b *Inbox) Read(p []byte) (int, error) {
	b.mu.Lock()
	for len(b.data) == 0 && b.end == nil && len(p) > 0 {
		b.more.Wait()
	}
	if len(b.data) == 0 && b.end != nil {
		err := b.end
		b.buf, b.data = nil, nil
		b.mu.Unlock()
		return 0, err
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	b.pending += n
	credit := 0
	if b.pending >= Window/2 && b.end == nil {
		credit, b.pending = b.pending, 0
	}
	b.mu.Unlock()
	if credit > 0 {
		b.grant(credit)
	}
	return n, nil
}
