package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	overlap         = 16 << 10               // bytes before new ones that a pattern may reach back to
	settle          = 200 * time.Millisecond // of silence, after which no more is expected
	patienceForMore = time.Second            // after which a match is taken as it is, whatever else comes
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
// has arrived so far, is taken only when what follows has come, when the guest
// has been silent for 200 ms, or after a second. A match spans at most 16 KiB. The place where a
// search begins counts as the start of a line.
//
// What a test types is echoed by the guest's terminal, and matches too: after
// Send("echo done") the pattern `^done` waits for the answer, `done` may not.
//
// The wait ends with an error when ctx does, when the console ends, and at once
// when the guest shows a sign of having crashed (errors.Is(err, ErrGuest)).
func (c *Console) Expect(ctx context.Context, pattern string) ([]string, error) {
	re, err := compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	select {
	case c.expecting <- struct{}{}:
		defer func() { <-c.expecting }()
	case <-ctx.Done():
		return nil, fmt.Errorf("expect %q: %w", pattern, context.Cause(ctx))
	}
	match, end, err := c.wait(ctx, re, c.cursor)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	c.cursor = end
	return match, nil
}

// wait searches the log from offset start on and returns the first match and
// the offset at which it ends.
func (c *Console) wait(ctx context.Context, re *pattern, start int64) ([]string, int64, error) {
	from := start // no match begins before this offset
	var found time.Time
	for {
		now := c.textFrom(from)
		if now.lost > 0 {
			return nil, 0, fmt.Errorf("%w (%d bytes)", errConsoleLost, now.lost)
		}
		var quiet <-chan time.Time
		began := time.Now()
		if loc := re.FindSubmatchIndex(now.text); loc != nil {
			if found.IsZero() {
				found = time.Now()
			}
			silent := time.Since(now.last)
			if now.eof || silent >= settle || time.Since(found) >= patienceForMore || re.final(lineOf(now.text, loc[0])) {
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

// lineOf returns the text from the start of the line on that holds an offset.
func lineOf(text []byte, at int) []byte {
	return text[bytes.LastIndexByte(text[:at], '\n')+1:]
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
