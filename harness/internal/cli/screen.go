package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/termtext"
	"guesthouse.example/internal/printable"
)

// A screen shows the guest's console on the user's terminal or in a file. It keeps
// the guest's unfinished line, so that it can recognize a prompt and put its own
// notices between the guest's lines.
type screen struct {
	out, err io.Writer
	raw      bool        // out is a terminal in raw mode, which needs "\r\n"
	muted    atomic.Bool // the guest's output is not shown

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced by every Write
	line     []byte        // the guest's unfinished line
	text     []byte        // the visible text of that line
	filter   termtext.Filter
	lines    int  // finished lines
	prompted bool // the guest has shown a prompt
}

// prompt matches an unfinished line that is a shell's prompt.
var prompt = regexp.MustCompile(`[$#>] $`)

func newScreen(out, err io.Writer, raw bool) *screen {
	return &screen{out: out, err: err, raw: raw, changed: make(chan struct{})}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if nl := bytes.LastIndexByte(p, '\n'); nl >= 0 {
		s.lines += bytes.Count(p, []byte{'\n'})
		s.line = append(s.line[:0], p[nl+1:]...)
	} else {
		s.line = append(s.line, p...)
	}
	s.text = s.filter.Append(s.text, p)
	s.text = append(s.text[:0], s.text[bytes.LastIndexByte(s.text, '\n')+1:]...)
	s.prompted = s.prompted || prompt.Match(s.text)
	close(s.changed)
	s.changed = make(chan struct{})
	if s.muted.Load() {
		return len(p), nil
	}
	return len(p), s.show(s.out, p)
}

// again unmutes the output and repeats the guest's unfinished line.
func (s *screen) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted.Store(false)
	s.show(s.out, s.line)
}

func (s *screen) show(w io.Writer, p []byte) error {
	if s.raw {
		p = bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))
	}
	_, err := w.Write(p)
	return err
}

// notice prints a message of this command on a line of its own. On a terminal it then
// repeats the guest's unfinished line.
func (s *screen) notice(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw && len(s.line) > 0 {
		s.show(s.out, []byte{'\n'})
		defer s.show(s.out, s.line)
	}
	return s.show(s.err, []byte(printable.Text(text)+"\n"))
}

// finished returns how many lines the guest has finished.
func (s *screen) finished() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines
}

// hasPrompt reports whether the guest has ever shown a prompt.
func (s *screen) hasPrompt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prompted
}

const (
	busy   = 30 * time.Second       // after this long a silence, run stops waiting for a prompt
	settle = 200 * time.Millisecond // the same for a guest that has never shown a prompt
)

// awaitPrompt waits for a prompt that follows more than after finished lines, and reports
// whether one came. It gives up when the guest has been silent for busy, or for settle if
// the guest has never shown a prompt.
func (s *screen) awaitPrompt(ctx context.Context, after int) bool {
	for {
		s.mu.Lock()
		ready := s.lines > after && prompt.Match(s.text)
		quiet, changed := settle, s.changed
		if s.prompted {
			quiet = busy
		}
		s.mu.Unlock()
		if ready {
			return true
		}
		select {
		case <-changed:
		case <-time.After(quiet):
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// readyLine names the running machine, how it was booted, and its forwarded ports.
func readyLine(m *harness.Machine, end string) string {
	var b strings.Builder
	res := m.Result()
	how := string(res.Boot)
	if res.Why != "" {
		how += ": " + res.Why
	}
	if res.Unseeded {
		how += fmt.Sprintf(", with the random numbers of its template and a clock %.0f s late", res.ClockLate)
	}
	fmt.Fprintf(&b, "guesthouse: %s ready in %.2f s (%s, %s: %s)", cmp.Or(res.Board, res.Target), res.ReadySeconds, how, res.Accel, res.AccelWhy)
	for _, p := range m.Ports() {
		fmt.Fprintf(&b, "; %s 127.0.0.1:%d -> %d", p.Network, p.Host, p.Guest)
	}
	for _, n := range res.Net {
		fmt.Fprintf(&b, "; on a lan as %s", n)
	}
	return b.String() + "; " + end
}
