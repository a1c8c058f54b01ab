package console

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The signs themselves are tested in package crash.

func TestACrashEndsExpect(t *testing.T) {
	for name, c := range map[string]struct{ text, shows string }{
		"of the kernel":            {"[    2.0][    T1] Oops: 0002 [#1] PREEMPT SMP\n", "Oops: 0002"},
		"of a program":             {"panic: no such sensor\n\ngoroutine 1 [running]:\nmain.main()\n", "no such sensor"},
		"behind a coloured prompt": {"\x1b[32muart:~$ \x1b[mpanic: no such sensor\n\ngoroutine 1 [running]:\nmain.main()\n", "no such sensor"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuestLine(t)
			go g.print(c.text)
			_, err := g.console.Expect(within(t, 10*time.Second), "ready")
			require.ErrorIs(t, err, ErrGuest)
			require.ErrorContains(t, err, c.shows)
		})
	}
}

func TestACrashWordInsideALineIsNoCrash(t *testing.T) {
	g := newGuestLine(t)
	g.print("panic: is what I do not\n[00:00:01.000,000] <err> app: handler panic: recovered\n" +
		"[00:00:01.000,000] <err> app: Internal error: disk slow\nOops: I did it again\nlater\n")
	expect(t, g.console, "later")
	require.Empty(t, g.console.Crash())
	require.Empty(t, g.console.Warnings())
}

func TestExpectFindsTextBeforeACrash(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("step 1\npanic: boom\n\ngoroutine 1 [running]:\nmain.main()\n"))
	require.Equal(t, "panic: boom", c.Crash())
	expect(t, c, "panic: boom")
}

func TestTheLastWordsOfAGoProgramAreSuspicious(t *testing.T) {
	c := newConsole(nowhere, Options{})
	require.False(t, c.Suspicious())
	c.append([]byte("panic: boom\n"))
	require.True(t, c.Suspicious())
	require.Empty(t, c.Crash())
	c.append([]byte("\ngoroutine 1 [running]:\nmain.main()\n"))
	<-c.Crashed()
	require.False(t, c.Suspicious(), "it is a crash")
}

func TestAWarningIsKeptAndEndsNoExpect(t *testing.T) {
	g := newGuestLine(t)
	g.print("==================\nWARNING: DATA RACE\nWrite at 0x00c00001c0a8 by goroutine 7:\nlater\n")
	expect(t, g.console, "later")
	require.Empty(t, g.console.Crash())
	require.Equal(t, []string{"WARNING: DATA RACE"}, g.console.Warnings())
}

func TestTheFirstWarningsAreKept(t *testing.T) {
	c := newConsole(nowhere, Options{})
	for i := range keepWarnings + 3 {
		c.append(fmt.Appendf(nil, "[    1.000000] BUG: KASAN: use-after-free in f%d\n", i))
	}
	require.Len(t, c.Warnings(), keepWarnings+1)
	require.Equal(t, "[    1.000000] BUG: KASAN: use-after-free in f0", c.Warnings()[0])
	require.Equal(t, "and 3 more", c.Warnings()[keepWarnings])
}

func TestSetCrashesExaminesTheKeptText(t *testing.T) {
	crashes := []*regexp.Regexp{regexp.MustCompile(`^FATAL\b`)}
	before, after := newConsole(nowhere, Options{}), newConsole(nowhere, Options{})
	before.append([]byte("WARNING: DATA RACE\nI say FATAL\nFATAL: no such sensor\n"))
	require.Empty(t, before.Crash())
	before.SetCrashes(crashes)
	require.Equal(t, "FATAL: no such sensor", before.Crash())
	require.Len(t, before.Warnings(), 1)

	after.SetCrashes(crashes)
	after.append([]byte("uart:~$ FATAL: no such sensor\n"))
	require.Equal(t, "FATAL: no such sensor", after.Crash())
}

func TestEvidenceShortensALongCrash(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte(strings.Repeat("before\n", 30) + "panic: no such sensor\n\ngoroutine 1 [running]:\n" +
		strings.Repeat("main.deep()\n", 300) + "exit status 2\n"))
	lines := c.Evidence()
	require.Equal(t, slices.Repeat([]string{"before"}, beforeCrash), lines[:beforeCrash])
	require.Equal(t, []string{"panic: no such sensor", "", "goroutine 1 [running]:"}, lines[beforeCrash:beforeCrash+3])
	require.Len(t, lines, beforeCrash+fromCrash+1+lastLines)
	require.Equal(t, fmt.Sprintf("[%d lines left out]", 304-fromCrash-lastLines), lines[beforeCrash+fromCrash])
	require.Equal(t, "exit status 2", lines[len(lines)-1])
}
