package console

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ErrRejected is wrapped by the error of a call that has found text that [Console.Reject] forbids.
var ErrRejected = errors.New("the console shows text that is rejected")

// rejects are the patterns of Reject.
type rejects struct {
	mu  sync.Mutex
	all []*rejected
}

// A rejected pattern must not match the text behind an offset.
type rejected struct {
	*pattern
	expr   string
	from   int64 // no match begins before this offset
	inLine bool  // from is inside a line
	err    error // of a match, or of lost text; no search follows
}

// Reject forbids text that matches pattern, from the end of the last match of [Console.Expect] on, until the line
// ends. Expect, ExpectAll, WaitFor and Idle fail as soon as the guest has printed such text. A call that
// has returned by then does not notice, so call Rejected after the line has ended too.
func (c *Console) Reject(pattern string) error {
	re, err := compile(pattern)
	if err != nil {
		return fmt.Errorf("reject %q: %w", pattern, err)
	}
	c.rejects.mu.Lock()
	c.rejects.all = append(c.rejects.all, &rejected{pattern: re, expr: pattern, from: c.cursor.Load()})
	c.rejects.mu.Unlock()
	return c.Rejected()
}

// Rejected returns an error that wraps ErrRejected if the guest has printed text that Reject forbids. A match at the
// end of the text counts when more text can no longer change it, when the guest has been silent for 200 ms,
// or when the line has ended.
func (c *Console) Rejected() error {
	_, err := c.rejected()
	return err
}

// rejected is Rejected. It also reports whether a match is open: silence of the guest would make it count.
func (c *Console) rejected() (open bool, err error) {
	c.rejects.mu.Lock()
	defer c.rejects.mu.Unlock()
	for _, r := range c.rejects.all {
		found, err := r.look(c)
		if err != nil {
			return false, err
		}
		open = open || found
	}
	return open, nil
}

// look searches the text that has arrived since the last call, and reports whether it has found an open match.
func (r *rejected) look(c *Console) (open bool, err error) {
	if r.err != nil {
		return false, r.err
	}
	now := c.textFrom(r.from)
	if now.lost > 0 {
		r.err = fmt.Errorf("reject %q: %w", r.expr, &lostTextError{now.lost, r.from + now.lost})
		return false, r.err
	}
	text := now.echoes.hide(now.text, r.from)
	if r.inLine {
		text = notFromItsStart(text)
	}
	loc := r.FindIndex(text)
	if loc != nil {
		if now.ended || time.Since(now.last) >= settle || r.final(lineOf(text, loc[0])) {
			r.err = fmt.Errorf("%w: %s matches %q", ErrRejected, quoteLine(lineAt(now.text, loc)), r.expr)
		}
		return r.err == nil, r.err
	}
	n := searched(text)
	if now.echoes.unsure >= 0 {
		n = min(n, lineStart(text, int(now.echoes.unsure-r.from)))
	}
	if n > 0 {
		r.from += int64(n)
		r.inLine = text[n-1] != '\n'
	}
	return false, nil
}

// ExpectAll waits until the console shows a match of every pattern, in any order. As with [Console.Expect], the search
// begins where the last successful call has ended; the next one begins behind the match that ends last.
// One text may match several patterns. For that reason ExpectAll refuses two equal patterns.
func (c *Console) ExpectAll(ctx context.Context, patterns ...string) error {
	all := make([]*pattern, len(patterns))
	seen := make(map[string]bool)
	for i, expr := range patterns {
		re, err := compile(expr)
		if err != nil {
			return fmt.Errorf("expect %q: %w", expr, err)
		}
		if seen[expr] {
			return fmt.Errorf("expect %q: the pattern is there twice, and one match would be enough for both", expr)
		}
		all[i], seen[expr] = re, true
	}
	release, err := c.turn(ctx)
	if err != nil {
		return fmt.Errorf("expect %q: %w", patterns, err)
	}
	defer release()
	last := c.cursor.Load()
	for i, re := range all {
		_, end, err := c.wait(ctx, re, c.cursor.Load())
		if err != nil {
			return fmt.Errorf("expect %q: %w", patterns[i], c.explained(re, err))
		}
		last = max(last, end)
	}
	c.cursor.Store(last)
	return nil
}

// Idle waits for a time, and fails as soon as the guest prints anything in that time.
func (c *Console) Idle(ctx context.Context, d time.Duration) error {
	noneRejected := func() error {
		if err := c.Rejected(); err != nil {
			return fmt.Errorf("idle for %v: %w", d, err)
		}
		return nil
	}
	if err := noneRejected(); err != nil {
		return err
	}
	over := time.After(d)
	from, text := c.Len(), c.textEnd()
	for {
		now := c.logFrom(from)
		switch {
		case now.lost > 0 || len(now.text) > 0:
			shown := strings.Trim(string(c.textFrom(text).text), "\n")
			line, _, _ := strings.Cut(shown, "\n")
			return fmt.Errorf("idle for %v: the console has shown %s", d, quoteLine(line))
		case now.ended:
			return fmt.Errorf("idle for %v: %w", d, ErrEnded)
		}
		select {
		case <-over:
			return noneRejected() // the silence may have made a match count
		case <-now.more:
		case <-ctx.Done():
			return fmt.Errorf("idle for %v: %w", d, context.Cause(ctx))
		}
	}
}

// textEnd returns the offset of the text that comes next.
func (c *Console) textEnd() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.end()
}
