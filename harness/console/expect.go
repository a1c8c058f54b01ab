package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"guesthouse.example/harness/internal/guestfault"
)

const (
	overlap      = 16 << 10               // bytes before new text in which a match may begin
	settle       = 200 * time.Millisecond // a guest that is silent for so long has finished printing
	openMatch    = time.Second            // after this time a match is taken even if more text could change it
	longestPause = 20 * time.Millisecond  // the longest pause between two searches
)

// A lostTextError ends the wait for a match in text that was partly dropped before it was searched.
type lostTextError struct {
	bytes int64 // the number of dropped bytes
	next  int64 // the offset of the oldest text that is kept
}

func (e *lostTextError) Error() string {
	return fmt.Sprintf("%d bytes of console text were dropped before they were searched: the last %d MiB are kept", e.bytes, keepConsole>>20)
}

// Expect waits until the console shows text that matches pattern, a regular expression, and returns
// the match and its submatches like [regexp.Regexp.FindStringSubmatch]. In the pattern, ^ and $ match
// at the start and end of a line. The search begins where the last successful Expect ended, so a
// sequence of calls asserts an order. Text that arrived before the call counts. The place where the
// search begins counts as the start of a line.
//
// Expect searches the text, which is what a person would read on a terminal; see [Console].
//
// More text could change a match at the end of the text, for example a match of `from (\S+)`. Expect
// takes such a match when more text can no longer change it, when the guest has been silent for 200 ms,
// or after a second. A match ends inside a multi-byte character only if the guest falls silent there. A
// match spans at most 16 KiB.
//
// Expect does not match the echo of a line that [Console.Send] has typed: after
// Send("sh prog all-good") the pattern `all-good` waits for an answer. The part of a pattern that
// matches anything, such as .*, may match across an echo, which is then left out of the result. The
// pattern `\$ $` matches a prompt to which no line was sent. A prompt that the guest printed before
// Send still matches; to rule it out, expect it before Send. What [Console.Type] has typed matches.
//
// Expect returns an error when ctx ends, when the line ends ([ErrEnded]), when the guest shows a sign of
// a crash ([ErrGuest]), and when it has printed text that [Console.Reject] forbids ([ErrRejected]). After
// a crash Expect first waits for the rest of the crash, such as a trace, so that the log has it. If more
// than 16 MiB arrive while no Expect waits, the console may drop text that no Expect has searched. One
// call then fails, and the next begins with the oldest text that is kept.
func (c *Console) Expect(ctx context.Context, pattern string) (match []string, err error) {
	re, err := compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	release, err := c.turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	defer release()
	match, end, err := c.wait(ctx, re, c.cursor.Load())
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, c.explained(re, err))
	}
	c.cursor.Store(end)
	return match, nil
}

// turn waits until no other call uses the cursor. If none does, turn succeeds even after ctx has ended. The caller
// calls release.
func (c *Console) turn(ctx context.Context) (release func(), err error) {
	release = func() { <-c.expecting }
	select {
	case c.expecting <- struct{}{}:
		return release, nil
	default:
	}
	select {
	case c.expecting <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// explained adds to the error of a search what the console shows. If text was lost, it moves the cursor behind
// it. The caller has the turn.
func (c *Console) explained(re *pattern, err error) error {
	if lost := (*lostTextError)(nil); errors.As(err, &lost) {
		c.cursor.Store(lost.next)
		return fmt.Errorf("%w. The next Expect begins with the oldest text that is kept. "+
			"An Expect that waits while the guest prints misses nothing, and a record has all that was printed", err)
	}
	return fmt.Errorf("%w%s", err, c.explain(re, err))
}

// WaitFor waits for a match like [Console.Expect], but it begins at an offset in the text, and
// returns the offset at which the match ends. It does not change where the next Expect begins, and
// several calls may wait at the same time. Its error has the cause alone, without the description
// of the console that Expect adds.
func (c *Console) WaitFor(ctx context.Context, pattern string, from int64) (match []string, end int64, err error) {
	re, err := compile(pattern)
	if err != nil {
		return nil, 0, err
	}
	return c.wait(ctx, re, from)
}

// WaitByte waits until the log has a byte. The text may still be empty then.
func (c *Console) WaitByte(ctx context.Context) error {
	for {
		now := c.logFrom(0)
		switch {
		case len(now.text) > 0 || now.lost > 0:
			return nil
		case now.ended:
			return ErrEnded
		}
		select {
		case <-now.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wait searches the text from an offset on and returns the first match and the offset at which it
// ends.
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
		if half := halfRune(text); half > 0 && !now.ended && silent < settle {
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
		open, err := c.rejected()
		if err != nil {
			return nil, 0, err
		}
		if open {
			quiet = time.After(settle - silent)
		}
		if loc := re.FindSubmatchIndex(text); loc != nil {
			if found.IsZero() {
				found = time.Now()
			}
			if now.ended || silent >= settle || time.Since(found) >= openMatch || re.final(lineOf(text, loc[0])) {
				return submatches(text, loc), from + int64(loc[1]), nil
			}
			quiet = time.After(settle - silent)
		} else {
			if now.crash != "" {
				c.awaitTrace(ctx)
				return nil, 0, guestfault.New(now.crash)
			}
			if now.ended {
				return nil, 0, ErrEnded
			}
			n := searched(text)
			if now.echoes.unsure >= 0 {
				n = min(n, lineStart(text, int(now.echoes.unsure-from)))
			}
			if n > 0 {
				from += int64(n)
				inLine = text[n-1] != '\n'
			}
			// Each search reads the overlap again. If the guest prints byte by byte, this
			// loop would take all of a processor, which the guest may need. The loop therefore
			// searches for at most a fifth of the time. The pause is short, so that the buffer
			// does not overflow during a flood.
			if err := pause(ctx, min(4*time.Since(began), longestPause)); err != nil {
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

func pause(ctx context.Context, d time.Duration) error {
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

// searched returns how many bytes of a text without a match need not be searched again. The rest
// is the overlap. It begins with a line, so that ^ keeps its meaning, or inside a long line with a
// character.
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

// notFromItsStart returns a text in which no pattern matches the first character, so that ^ does
// not match there. It is for a search that begins inside a line.
func notFromItsStart(text []byte) []byte {
	text = bytes.Clone(text)
	for i := range text {
		if i > 0 && utf8.RuneStart(text[i]) {
			break
		}
		text[i] = echoByte
	}
	return text
}

// halfRune returns how many bytes at the end of a text begin a character that is not complete.
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

// lineOf returns the text from the start of the line that holds an offset.
func lineOf(text []byte, at int) []byte { return text[lineStart(text, at):] }

// lineStart returns where the line that holds an offset begins. The offset may be outside the text.
func lineStart(text []byte, at int) int {
	return bytes.LastIndexByte(text[:min(max(at, 0), len(text))], '\n') + 1
}

func submatches(text []byte, loc []int) []string {
	match := make([]string, len(loc)/2)
	for i := range match {
		if loc[2*i] >= 0 {
			match[i] = withoutEchoes(string(text[loc[2*i]:loc[2*i+1]]))
		}
	}
	return match
}
