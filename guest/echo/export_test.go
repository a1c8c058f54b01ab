package echo

import "time"

// TurnAwayFor sets how long the server waits for a client that it turns away.
func (s *Server) TurnAwayFor(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surplusTime = d
}
