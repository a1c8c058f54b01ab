// Package disk is the harness's end of the disk that carries bulk data between the guest and the harness.
//
// A virtio-serial port carries 10 to 40 MB/s into an emulated guest, because its driver receives a page at
// a time. A disk transfers by DMA. QEMU's disk is a network block device (NBD), and a [Server] is its
// server, on a socket pair that QEMU inherits. Package diskproto describes the requests in the disk's slots.
package disk

import (
	"context"
	"net"
	"sync"

	"guesthouse.example/internal/diskproto"
)

// A Handler answers a request of the guest. It may be called by several goroutines at once, and should
// return when ctx ends. The request is valid until it returns. The answer, of at most diskproto.MaxPayload
// bytes, must not change until the next call for which the guest has waited for this answer. The guest gets
// the text of an error.
type Handler func(ctx context.Context, request []byte) (answer []byte, err error)

// A Server serves the disk of one machine. All methods may be called from any goroutine.
type Server struct {
	conn net.Conn
	done chan struct{}

	ctx    context.Context // of the handlers
	cancel context.CancelFunc

	replying sync.Mutex // held while a reply is written

	mu       sync.Mutex // guards all fields below
	slots    [diskproto.Slots]slot
	channels map[uint32]*Channel
	last     uint32 // the number of the newest channel
}

// New returns the server of a machine's disk. Serve serves it.
func New(conn net.Conn) *Server {
	s := &Server{conn: conn, done: make(chan struct{}), channels: make(map[uint32]*Channel)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Done returns a channel that is closed when Serve has returned.
func (s *Server) Done() <-chan struct{} { return s.done }

// A Channel leads the guest's requests to a handler.
type Channel struct {
	// Number is the number by which the guest names the channel. The numbers of a machine are never used
	// twice.
	Number uint32

	server  *Server
	handler Handler
	ctx     context.Context
	cancel  context.CancelFunc
	calls   sync.WaitGroup
}

// Open opens a channel. The caller closes it.
func (s *Server) Open(h Handler) *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	c := &Channel{Number: s.last, server: s, handler: h}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	s.channels[c.Number] = c
	return c
}

// Close ends the contexts of the channel's handlers and waits until they have returned. The guest's later
// requests fail.
func (c *Channel) Close() {
	c.server.mu.Lock()
	delete(c.server.channels, c.Number)
	c.server.mu.Unlock()
	c.cancel()
	c.calls.Wait()
}
