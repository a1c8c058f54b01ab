package echo

import "time"

// TurnAwayFor sets how long the server waits for a client that it turns away.
func (s *Server) TurnAwayFor(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surplusTime = d
}

// Dropped returns how many UDP datagrams were not answered, because they were longer than
// BufferSize or because the answer could not be sent.
func (s *Server) Dropped() uint64 { return s.dropped.Load() }
