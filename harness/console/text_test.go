package console

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// followed returns the log of a console that has ended.
func followed(t require.TestingT, c *Console) string {
	var log strings.Builder
	require.NoError(t, c.Follow(context.Background(), &log))
	return log.String()
}

func TestAPatternMatchesWhatAPersonReads(t *testing.T) {
	for name, c := range map[string]struct {
		output  string
		matches []string // one after the other
	}{
		"a program that ends lines for a terminal": {"Uptime: 5 ms\r\r\nnext\r\r\n", []string{`^Uptime: (\d+) ms$`, `^next$`}},
		"line ends the other way round":            {"Uptime: 5 ms\n\rnext\n\r", []string{`^Uptime: (\d+) ms$`, `^next$`}},
		"a coloured log":                           {"\x1b[32m[00:00:01]\x1b[0m \x1b[1;33m<wrn> app: late\x1b[0m\r\n", []string{`^\[00:00:01\] <wrn> app: late$`}},
		"a shell with bracketed paste":             {"\x1b[?2004h$ \x1b[?2004l\rresult\r\n\x1b[?2004h$ ", []string{`^result$`, `^\$ `}},
		"a prompt with a colour":                   {"\x1b[1;32muart:~$ \x1b[m", []string{`^uart:~\$ $`}},
		"a title before the line":                  {"\x1b]0;root@guest\x07ready\r\n", []string{`^ready$`}},
		"a progress bar":                           {"10%\r50%\r100%\r\n", []string{`^50%$`, `^100%$`}},
		"a progress bar that erases":               {"\r\x1b[K10%\r\x1b[K50%\r\x1b[K100%\r\n", []string{`^50%$`, `^100%$`}},
		"a progress bar that has not ended":        {"10%\r50%", []string{`^50%$`}},
		"a log line over the prompt, as Zephyr's":  {"uart:~$ \x1b[8D\x1b[J[00:00:01] <inf> app: hello\r\nuart:~$ ", []string{`^\[00:00:01\] <inf> app: hello$`, `^uart:~\$ $`}},
		"a prompt of NuttX":                        {"\r\nNuttShell (NSH) NuttX-12.4.0\r\nnsh> \x1b[Kuname\r\nNuttX\r\nnsh> \x1b[K", []string{`^NuttShell \(NSH\) NuttX-[\d.]+$`, `^nsh> uname$`, `^NuttX$`, `^nsh> $`}},
		"a coloured line of Zephyr over a coloured prompt": {"\r\n\x1b[1;32muart:~$ \x1b[m\x1b[8D\x1b[J[00:00:00.130,000] \x1b[0m<inf> net_config: Initializing network\x1b[0m\r\n\x1b[1;32muart:~$ \x1b[m",
			[]string{`^\[00:00:00\.130,000\] <inf> net_config: Initializing network$`, `^uart:~\$ $`}},
		"a prompt that kernel messages do not touch": {"ready\r\n\x00\x00uart:~$ ", []string{`^uart:~\$ `}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuestLine(t)
			written := make(chan struct{})
			go func() {
				defer close(written)
				for i := range len(c.output) {
					g.Write([]byte{c.output[i]})
				}
			}()
			for _, pattern := range c.matches {
				expect(t, g.console, pattern)
			}
			<-written
			g.Close()
			expectEnd(t, g.console)
			log := strings.ReplaceAll(c.output, "\r\n", "\n")
			require.Equal(t, log, followed(t, g.console), "the log keeps the guest's bytes")
			require.Equal(t, log, g.record.String(), "and so does the record")
		})
	}
}

// expectEnd waits until a console has ended.
func expectEnd(t *testing.T, c *Console) {
	t.Helper()
	_, err := c.Expect(within(t, 10*time.Second), `never said \x01`)
	require.ErrorIs(t, err, ErrEnded)
}

func TestTailAndTextAreWhatAPersonReads(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("\x1b[31mred\x1b[0m\r\n1%\r2%\r\nend\r"))
	require.Equal(t, "red\n1%\n2%\nend", c.Text())
	require.Equal(t, []string{"2%", "end"}, c.Tail(2))
}

func TestAColouredCrashIsACrash(t *testing.T) {
	g := newGuestLine(t)
	go g.print("\x1b[31mpanic: boom\x1b[0m\r\r\n\r\r\n\x1b[1mgoroutine 1 [running]:\x1b[0m\r\r\nmain.main()\r\r\n")
	_, err := g.console.Expect(within(t, 10*time.Second), "ready")
	require.ErrorIs(t, err, ErrGuest)
	require.ErrorContains(t, err, "panic: boom")
}

// Log, text and crash do not depend on how the guest's bytes are split over reads, nor on when the
// console is saved and restored.
func TestAConsoleDoesNotDependOnHowItsBytesAreSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", "\r", "\n", "\x1b[31m", "\x1b]0;x\x07", "\x1b[", "°", "\xc2", "\b",
			"\x1b[8D", "50%", "uart:~$ ", "panic: boom\r\n", "goroutine 1 [running]:\r\n", "words"})).Draw(t, "parts")
		output := []byte(strings.Join(parts, ""))
		var record strings.Builder
		whole := newConsole(nowhere, Options{Record: &record})
		whole.append(output)
		whole.end()

		rest := output
		var again strings.Builder
		c := newConsole(nowhere, Options{Record: &again})
		for len(rest) > 0 {
			n := rapid.IntRange(1, len(rest)).Draw(t, "read")
			c.append(rest[:n])
			rest = rest[n:]
			if rapid.Bool().Draw(t, "saved") {
				text, err := json.Marshal(c.State())
				require.NoError(t, err)
				var saved State
				require.NoError(t, json.Unmarshal(text, &saved))
				again.Reset()
				c = newConsole(nowhere, Options{Record: &again, State: &saved})
			}
		}
		c.end()
		require.Equal(t, whole.Text(), c.Text())
		require.Equal(t, record.String(), again.String())
		require.Equal(t, followed(t, whole), followed(t, c))
		require.Equal(t, whole.Crash(), c.Crash())
	})
}

func TestWaitByteReturnsForAByteThatShowsNothing(t *testing.T) {
	g := newGuestLine(t)
	go g.print("\x1bc\x1b[2J")
	require.NoError(t, g.console.WaitByte(within(t, 10*time.Second)))
	require.Empty(t, g.console.Text())
}
