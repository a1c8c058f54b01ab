package console

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"guesthouse.example/harness/internal/crash"
)

// look searches new text for signs of a crash. The caller holds mu.
func (c *Console) look(text []byte) {
	if c.crash != "" {
		return
	}
	c.note(c.detect.Write(text))
}

// note keeps what was found, up to the first crash. The caller holds mu.
func (c *Console) note(found []crash.Found) {
	for _, f := range found {
		switch {
		case c.crash != "":
			return
		case f.Sign.Severity == crash.Crash:
			c.crash = f.Line
			close(c.crashed)
			return
		case len(c.warnings) < keepWarnings:
			c.warnings = append(c.warnings, f.Line)
		default:
			c.unkept++
		}
	}
}

// SetCrashes replaces [Options.Crashes], and searches the text that is in memory again for crashes and
// warnings.
func (c *Console) SetCrashes(crashes []*regexp.Regexp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detect, c.warnings, c.unkept = crash.New(crashes), nil, 0
	c.look(c.text.bytes)
}

// Crash returns the line that shows that the guest has crashed. It returns "" as long as no line
// does.
func (c *Console) Crash() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crash
}

// Crashed returns a channel that is closed when the guest crashes.
func (c *Console) Crashed() <-chan struct{} { return c.crashed }

// Suspicious reports whether the newest text may be the beginning of a crash. For example, the
// message of a Go panic is a crash only if a goroutine's trace follows.
func (c *Console) Suspicious() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crash == "" && c.detect.Suspicious()
}

const (
	keepWarnings = 10              // the first warnings say most
	traceWithin  = 2 * time.Second // bounds the wait for a trace
)

// Warnings returns the lines that show a fault of the guest, its kernel or one of its programs that
// is no crash: a data race, a sanitizer's report, a kernel warning. It returns the first 10; if
// there were more, another line says how many.
func (c *Console) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	warnings := slices.Clone(c.warnings)
	if c.unkept > 0 {
		warnings = append(warnings, fmt.Sprintf("and %d more", c.unkept))
	}
	return warnings
}

// awaitTrace waits until the guest has printed everything about its crash, or until ctx ends.
func (c *Console) awaitTrace(ctx context.Context) {
	if c.crashComplete != nil {
		select {
		case <-c.crashComplete:
		case <-ctx.Done():
		}
		return
	}
	late := time.After(traceWithin)
	for {
		now := c.logFrom(c.Len())
		silent := time.Since(now.last)
		if now.ended || silent >= settle {
			return
		}
		select {
		case <-now.more:
		case <-time.After(settle - silent):
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}

const (
	tailLines   = 20 // the lines of a guest that has not crashed
	beforeCrash = 12 // lines before the sign of a crash: Zephyr prints the registers there
	fromCrash   = 50 // lines from the sign on, where a trace says most
	lastLines   = 10 // lines at the end of a shortened crash
)

// Evidence returns the lines of the text that an error about the guest should show: the last 20, or
// the crash and its trace, shortened in the middle.
func (c *Console) Evidence() []string {
	crash := c.Crash()
	if crash == "" {
		return c.Tail(tailLines)
	}
	lines := c.Tail(math.MaxInt)
	for i, line := range slices.Backward(lines) {
		if !strings.Contains(line, crash) {
			continue
		}
		lines = lines[max(0, i-beforeCrash):]
		if leftOut := len(lines) - beforeCrash - fromCrash - lastLines; leftOut > 1 {
			lines = slices.Concat(lines[:beforeCrash+fromCrash],
				[]string{fmt.Sprintf("[%d lines left out]", leftOut)}, lines[len(lines)-lastLines:])
		}
		return lines
	}
	return c.Tail(tailLines)
}
