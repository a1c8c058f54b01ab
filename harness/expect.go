package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	overlap         = 16 << 10               // bytes before new ones that a pattern may reach back to
	settle          = 200 * time.Millisecond // of silence, after which no more is expected
	patienceForMore = time.Second            // after which a match is taken as it is, whatever else comes
	longestRest     = 20 * time.Millisecond  // after a search that found nothing
)

// errConsoleEnded ends a wait for a console that says no more.
var errConsoleEnded = errors.New("the console has ended")

// A lostTextError ends a wait for text of which a part was dropped before it was searched.
type lostTextError struct {
	bytes int64 // so many
	next  int64 // where the text that is kept begins
}

func (e *lostTextError) Error() string {
	return fmt.Sprintf("%d bytes of console text were dropped before they were searched: the last %d MiB are kept. "+
		"The next Expect begins with the oldest text that is kept; look into the record's console.log for what was before. "+
		"An Expect that waits while the guest prints misses nothing", e.bytes, keepConsole>>20)
}

// Expect waits until the console shows text that matches pattern and returns
// the match and its submatches, as regexp.FindStringSubmatch does. ^ and $
// match at lines. The search begins where the last successful Expect ended, so
// a sequence of calls asserts an order; text that arrived before the call
// counts.
//
// The text is what a person would read on a terminal, without escape sequences; see
// [Console]. What is printed over older text, as by a progress bar, stands on a line of its
// own.
//
// A match that more text could change, such as `from (\S+)` at the end of what
// has arrived so far, is taken only when what follows has come, when the guest
// has been silent for 200 ms, or after a second. A match ends inside a character of
// several bytes only if the guest falls silent there. A match spans at most 16 KiB. The place
// where a search begins counts as the start of a line.
//
// The echo of a line that Send has typed does not match: after Send("sh prog all-good") the pattern
// `all-good` waits for an answer. A part of a pattern that matches anything, such as .*, may
// reach over an echo, which is then left out of what is returned; `\$ $` is a prompt that no
// line was sent to. A prompt from before Send still counts: expect it first. What
// Type has typed matches.
//
// The wait ends with an error when ctx does, when the console ends, and when the guest shows
// a sign of having crashed (errors.Is(err, ErrGuest)): as soon as the rest of what it says
// about that, a trace for example, is in the log too. It fails once where
// text was dropped that no Expect has searched, because more than 16 MiB came while none waited;
// the next call begins with the oldest text that is kept.
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
		if lost := (*lostTextError)(nil); errors.As(err, &lost) {
			c.cursor = lost.next
			return nil, fmt.Errorf("expect %q: %w", pattern, err)
		}
		return nil, fmt.Errorf("expect %q: %w%s", pattern, err, c.explain(re, err))
	}
	c.cursor = end
	return match, nil
}

// wait searches the text from offset start on and returns the first match and
// the offset at which it ends.
func (c *Console) wait(ctx context.Context, re *pattern, start int64) ([]string, int64, error) {
	from := start // no match begins before this offset
	inLine := false
	var found time.Time
	for {
		now := c.textFrom(from)
		if now.lost > 0 {
			return nil, 0, &lostTextError{now.lost, from + now.lost}
		}
		var quiet <-chan time.Time
		began, silent := time.Now(), time.Since(now.last)
		text := now.echoes.hide(now.text, from)
		if half := halfRune(text); half > 0 && !now.eof && silent < settle {
			text = text[:len(text)-half]
			quiet = time.After(settle - silent)
		}
		var echoed <-chan time.Time
		if !now.echoes.until.IsZero() {
			echoed = time.After(time.Until(now.echoes.until))
		}
		if inLine {
			text = notFromItsStart(text)
		}
		if loc := re.FindSubmatchIndex(text); loc != nil {
			if found.IsZero() {
				found = time.Now()
			}
			if now.eof || silent >= settle || time.Since(found) >= patienceForMore || re.final(lineOf(text, loc[0])) {
				return submatches(text, loc), from + int64(loc[1]), nil
			}
			quiet = time.After(settle - silent)
		} else {
			if now.crash != "" {
				c.awaitRest(ctx)
				return nil, 0, guestError(now.crash)
			}
			if now.eof {
				return nil, 0, errConsoleEnded
			}
			n := searched(text)
			if now.echoes.unsure >= 0 {
				n = min(n, lineStart(text, int(now.echoes.unsure-from)))
			}
			if n > 0 {
				from += int64(n)
				inLine = text[n-1] != '\n'
			}
			// A guest that prints byte by byte would have the overlap
			// searched for each of them. Searching for a fifth of
			// the time leaves the processor to the guest. Of a flood more
			// must not come meanwhile than is kept.
			if err := rest(ctx, min(4*time.Since(began), longestRest)); err != nil {
				return nil, 0, err
			}
		}
		select {
		case <-now.more:
		case <-quiet:
		case <-echoed:
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
// meaning, or where a line is longer than that, of a character.
func searched(text []byte) int {
	back := len(text) - overlap
	if back <= 0 {
		return 0
	}
	if nl := bytes.LastIndexByte(text[:back], '\n'); nl >= 0 {
		return nl + 1
	}
	return back - halfRune(text[:back])
}

// notFromItsStart returns the rest of a line for a search in which ^ does not match at its
// beginning: no pattern matches its first character.
func notFromItsStart(text []byte) []byte {
	text = bytes.Clone(text)
	for i := range text {
		if i > 0 && utf8.RuneStart(text[i]) {
			break
		}
		text[i] = unmatched
	}
	return text
}

// halfRune returns how many bytes at the end of a text are the beginning of a character.
func halfRune(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// lineOf returns the text from the start of the line on that holds an offset.
func lineOf(text []byte, at int) []byte { return text[lineStart(text, at):] }

// lineStart returns where the line begins that holds an offset, which may be outside the text.
func lineStart(text []byte, at int) int {
	return bytes.LastIndexByte(text[:min(max(at, 0), len(text))], '\n') + 1
}

func submatches(text []byte, loc []int) []string {
	match := make([]string, len(loc)/2)
	for i := range match {
		if loc[2*i] >= 0 {
			match[i] = strings.ReplaceAll(string(text[loc[2*i]:loc[2*i+1]]), string(rune(unmatched)), "")
		}
	}
	return match
}
