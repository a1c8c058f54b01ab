package echo

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// surplusMax is how many connections over the capacity may be closing at once.
	// While there are that many and no client slot is free, the listener rests. Further
	// connections wait in its queue, where they cost the server nothing.
	surplusMax = 64

	// The server closes a connection over the capacity when its client has ended it, or
	// after surplusTime, or after it has read surplusBytes.
	surplusTime  = 2 * time.Second
	surplusBytes = 1 << 20
)

// turnAway closes a connection so that its client reads the end of the stream, even if the
// client sends. It shuts the connection down, reads until the client ends it too, and only
// then closes it. Without the reading, the kernel would answer unread bytes with a reset,
// which can overtake the end of the stream. A goroutine does the reading with package os,
// because on the loop it would take slots from clients.
func (s *Server) turnAway(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := os.NewFile(uintptr(fd), "surplus connection")
	_ = f.SetReadDeadline(time.Now().Add(s.surplusTime))
	s.surplus[f] = true
	s.turning.Go(func() {
		_, _ = io.CopyN(io.Discard, f, surplusBytes)
		s.mu.Lock()
		delete(s.surplus, f)
		s.mu.Unlock()
		_ = f.Close()
		s.resume()
	})
}

// crowded reports whether a further connection can be neither served nor turned away.
func (s *Server) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients) == s.tcp.Slots() && len(s.surplus) >= surplusMax
}

// dismiss closes all connections over the capacity.
func (s *Server) dismiss() {
	s.mu.Lock()
	for f := range s.surplus {
		_ = f.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	s.turning.Wait()
}
