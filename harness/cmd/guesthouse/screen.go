package main

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/internal/termtext"
	"guesthouse.example/internal/printable"
)

// A screen is where the guest's console is shown: the user's terminal or a
// file. It knows the line that the guest has not finished, so that a notice
// of ours goes between the guest's lines and a prompt is seen.
type screen struct {
	out, err io.Writer
	raw      bool        // a terminal in raw mode, where "\n" alone does not return the carriage
	muted    atomic.Bool // the guest's output is not shown

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced by every Write
	line     []byte        // what the guest has printed of its last line
	text     []byte        // what a person reads of it
	filter   termtext.Filter
	lines    int  // that it has finished
	prompted bool // it has shown a prompt
}

// prompt matches an unfinished line by which a shell asks for a command.
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

// again shows a guest's output that was muted, from its unfinished line on.
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

// notice shows a line of ours. On a terminal the guest's unfinished line is
// shown again below it.
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

// hasPrompt reports whether the guest has ever asked for a command.
func (s *screen) hasPrompt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prompted
}

const (
	busy   = 30 * time.Second       // of silence, after which a command is not waited for any longer
	settle = 200 * time.Millisecond // of silence, after which a guest that has no prompt takes a line
)

// awaitPrompt waits until the guest asks for a command, with more lines
// finished than after; it reports whether it did. A guest that has never shown
// a prompt has a moment, and one whose command is silent for long is not
// waited for.
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
