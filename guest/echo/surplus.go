package echo

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// surplusMax is how many connections over the capacity are being closed at once.
	// While there are so many, and no room for a client, the listener rests: further
	// connections wait in its queue, where they cost the server nothing.
	surplusMax = 64

	// A connection over the capacity is closed when its client has ended it, or else
	// after so much time or so many bytes.
	surplusTime  = 2 * time.Second
	surplusBytes = 1 << 20
)

// turnAway closes a connection so that its client reads the end of the stream, whatever
// it sends: it is shut down, read from until its client ends it as well, and only then
// closed. Bytes that a closed socket has not read, or that arrive afterwards, are answered
// with a reset, which can overtake the end. This waits, so it is done on a goroutine and
// by package os, not on the loop: it needs no slots, of which clients would be deprived.
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

// dismiss ends the turning away.
func (s *Server) dismiss() {
	s.mu.Lock()
	for f := range s.surplus {
		_ = f.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	s.turning.Wait()
}
