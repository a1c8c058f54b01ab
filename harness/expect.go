package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

const (
	overlap = 16 << 10               // bytes before new ones that a pattern may reach back to
	settle  = 200 * time.Millisecond // of silence, after which no more is expected
)

// A stopped console ends a wait with one of these.
var (
	errConsoleEnded = errors.New("the console has ended")
	errConsoleLost  = errors.New("console text was dropped before it was searched")
)

// Expect waits until the console shows text that matches pattern and returns
// the match and its submatches, as regexp.FindStringSubmatch does. ^ and $
// match at lines. The search begins where the last successful Expect ended, so
// a sequence of calls asserts an order; text that arrived before the call
// counts.
//
// A match that more text could change, such as `from (\S+)` at the end of what
// has arrived so far, is taken only when its line is complete or the guest has
// been silent for 200 ms. A match spans at most 16 KiB. The place where a
// search begins counts as the start of a line.
//
// The wait ends with an error when ctx does, when the console ends, and at once
// when the guest shows a sign of having crashed (errors.Is(err, ErrGuest)).
func (c *Console) Expect(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	c.expectMu.Lock()
	defer c.expectMu.Unlock()
	match, end, err := c.wait(ctx, re, c.cursor)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	c.cursor = end
	return match, nil
}

// wait searches the log from offset start on and returns the first match and
// the offset at which it ends.
func (c *Console) wait(ctx context.Context, re *regexp.Regexp, start int64) ([]string, int64, error) {
	from := start // no match begins before this offset
	for {
		now := c.snapshot(from)
		if now.lost > 0 {
			return nil, 0, fmt.Errorf("%w (%d bytes)", errConsoleLost, now.lost)
		}
		var quiet <-chan time.Time
		began := time.Now()
		if loc := re.FindSubmatchIndex(now.text); loc != nil {
			silent := time.Since(now.last)
			if now.eof || silent >= settle || stable(re, now.text, loc) {
				return submatches(now.text, loc), from + int64(loc[1]), nil
			}
			quiet = time.After(settle - silent)
		} else {
			if now.crash != "" {
				return nil, 0, fmt.Errorf("%w: %s", ErrGuest, now.crash)
			}
			if now.eof {
				return nil, 0, errConsoleEnded
			}
			from += searched(now.text)
			// A guest that prints byte by byte would have the overlap
			// searched for each of them. Searching for a fifth of
			// the time leaves the processor to the guest.
			if err := rest(ctx, 4*time.Since(began)); err != nil {
				return nil, 0, err
			}
		}
		select {
		case <-now.more:
		case <-quiet:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	if d < 200*time.Microsecond {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// searched returns how much of a text without a match need not be searched
// again: all but the overlap, from the start of a line on so that ^ keeps its
// meaning.
func searched(text []byte) int64 {
	back := len(text) - overlap
	if back <= 0 {
		return 0
	}
	if nl := bytes.LastIndexByte(text[:back], '\n'); nl >= 0 {
		return int64(nl) + 1
	}
	return int64(back)
}

func submatches(text []byte, loc []int) []string {
	match := make([]string, len(loc)/2)
	for i := range match {
		if loc[2*i] >= 0 {
			match[i] = string(text[loc[2*i]:loc[2*i+1]])
		}
	}
	return match
}

// stable reports whether a match stays what it is whatever follows the text: its
// line is complete, or no kind of next byte changes it.
func stable(re *regexp.Regexp, text []byte, loc []int) bool {
	if bytes.IndexByte(text[loc[1]:], '\n') >= 0 || bytes.HasSuffix(text[loc[0]:loc[1]], []byte("\n")) {
		return true
	}
	begin := max(0, bytes.LastIndexByte(text[:loc[0]], '\n'))
	for _, next := range "a0 .-\n" {
		again := re.FindIndex(append(bytes.Clone(text[begin:]), byte(next)))
		if again == nil || again[0]+begin != loc[0] || again[1]+begin != loc[1] {
			return false
		}
	}
	return true
}
