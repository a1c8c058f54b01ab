package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestExpectFindsTextFromBeforeAndAfterTheCall(t *testing.T) {
	g := newGuestLine(t)
	g.print("service_udp  1 socket\r\n")
	require.Equal(t, []string{"service_udp  1 socket", "1"}, expect(t, g.console, `^service_udp\s+(\d) socket$`))
	go g.print("service_tcp  4 sockets\r\n")
	require.Equal(t, []string{"service_tcp  4 sockets", "4"}, expect(t, g.console, `^service_tcp\s+(\d) sockets$`))
}

func TestExpectAssertsAnOrder(t *testing.T) {
	g := newGuestLine(t)
	g.print("one\ntwo\nthree\n")
	expect(t, g.console, "two")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	_, err := g.console.Expect(ctx, "one")
	require.ErrorContains(t, err, `expect "one": gave up`, "text before the last match does not count")
	expect(t, g.console, "three")
}

func TestExpectWaitsForTheRestOfAWord(t *testing.T) {
	g := newGuestLine(t)
	g.print("Connection from 192.0.")
	go g.print("2.2 (7)\n")
	require.Equal(t, "192.0.2.2", expect(t, g.console, `from (\S+)`)[1])
}

func TestExpectFindsAPromptWithoutALineEnd(t *testing.T) {
	g := newGuestLine(t)
	g.print("uart:~$ ")
	expect(t, g.console, `uart:~\$ `)
}

func TestExpectTakesAnOpenMatchWhenTheGuestFallsSilent(t *testing.T) {
	g := newGuestLine(t)
	g.print("Password for root")
	require.Equal(t, "root", expect(t, g.console, `Password for (\w+)`)[1])
}

func TestAMatchMaySpanReads(t *testing.T) {
	g := newGuestLine(t)
	go func() {
		for _, b := range []byte("Single-threaded TCP/UDP echo server\n") {
			g.Write([]byte{b})
		}
	}()
	expect(t, g.console, "threaded TCP/UDP echo")
}

func TestExpectFindsAMatchInALongLog(t *testing.T) {
	g := newGuestLine(t)
	go func() {
		line := strings.Repeat("noise ", 20) + "\n"
		for range 40000 { // 4.8 MB
			g.print(line)
		}
		g.print("needle 42\n")
	}()
	require.Equal(t, "42", expect(t, g.console, `needle (\d+)`)[1])
}

func TestExpectRefusesABadPattern(t *testing.T) {
	_, err := newConsole(nowhere, Options{}).Expect(t.Context(), "(")
	require.ErrorContains(t, err, "missing closing )")
}

func TestExpectFailsWhenTheLineEnds(t *testing.T) {
	g := newGuestLine(t)
	g.print("bye")
	g.Close()
	_, err := g.console.Expect(within(t, 10*time.Second), "welcome")
	require.ErrorIs(t, err, ErrEnded)
	require.NotErrorIs(t, err, ErrGuest)
}

func TestExpectTakesAnOpenMatchOfAGuestThatNeverFallsSilent(t *testing.T) {
	g := newGuestLine(t)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				g.print("a b\n")
			}
		}
	}()
	expect(t, g.console, `(?s)a.*b`)
}

func TestExpectEndsWithItsContextWhileAnotherRuns(t *testing.T) {
	g := newGuestLine(t)
	first := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := g.console.Expect(ctx, "never said")
		first <- err
	}()
	for len(g.console.expecting) == 0 {
		runtime.Gosched()
	}
	gone, now := context.WithCancel(t.Context())
	now()
	_, err := g.console.Expect(gone, "anything")
	require.ErrorIs(t, err, context.Canceled)
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
}

// expected returns what Expect finds while a guest prints parts of its output, one every 10 ms.
func expected(t *testing.T, pattern string, parts ...string) (match []string, err error) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(nowhere, Options{})
		for i, part := range parts {
			time.AfterFunc(time.Duration(i)*10*time.Millisecond, func() { c.append([]byte(part)) })
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		match, err = c.Expect(ctx, pattern)
	})
	return match, err
}

// bytesOf splits a text into its bytes.
func bytesOf(text string) (all []string) {
	for i := range len(text) {
		all = append(all, text[i:i+1])
	}
	return all
}

func TestAMatchDoesNotDependOnHowTheOutputIsSplit(t *testing.T) {
	for _, c := range []struct{ pattern, output string }{
		{`^temp: \d+(.)`, "temp: 20°C\n"},
		{`^temp: \d+(.)(.)`, "temp: 20\r\ntemp: 21°C\r\n"},
		{`°(.)`, "20°℃ °\n"},
		{`[^a-z: ]+`, "temp: ℃ °\r\n"},
		{`👩‍💻(.?)`, "x👩‍💻\r\n"},
		{`é|[^a-z]`, "caf\u00e9\n"},
		{`Gr(..?)e`, "Grüße\r\n"},
		{`(\S+)$`, "state: läuft\r\n"},
		{`^done$`, "done\r\r\n"},
		{`^done$`, "\x1b[32mdone\x1b[0m\r\n"},
		{`red(.)`, "\x1b[31mred\x1b[0m!\n"},
		{`caf(.)`, "caf\xe9 au lait\n"}, // Latin-1, which never becomes a character
	} {
		t.Run(c.pattern, func(t *testing.T) {
			whole, err := expected(t, c.pattern, c.output)
			require.NoError(t, err)
			byBytes, err := expected(t, c.pattern, bytesOf(c.output)...)
			require.NoError(t, err)
			require.Equal(t, whole, byBytes)
			for i := range len(c.output) {
				match, err := expected(t, c.pattern, c.output[:i], c.output[i:])
				require.NoError(t, err)
				require.Equal(t, whole, match, "split at %d", i)
			}
		})
	}
}

func TestAnyMatchDoesNotDependOnHowTheOutputIsSplit(t *testing.T) {
	patterns := []string{`.°`, `a(.)`, `(.)$`, `^.`, `\W+`, `[^a]b?`, `\S\s`, `b*a`, `a|°|℃`, `a.?.?b`}
	rapid.Check(t, func(rt *rapid.T) {
		pattern := rapid.SampledFrom(patterns).Draw(rt, "pattern")
		output := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"a", "b", "°", "℃", "👩", "\r\n", "\r", "\n", "\x1b[1m", "\xe2\x84", "\xff", " ",
		}), 0, 8).Draw(rt, "output"), "") + "\n" + "abab°\r\n\n a\n" // every pattern matches this
		whole, err := expected(t, pattern, output)
		require.NoError(rt, err)
		byBytes, err := expected(t, pattern, bytesOf(output)...)
		require.NoError(rt, err)
		require.Equal(rt, whole, byBytes)
	})
}

func TestExpectTakesHalfACharacterWhenTheGuestFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(nowhere, Options{})
		c.append([]byte("caf\xc3"))
		start := time.Now()
		match, err := c.Expect(t.Context(), `caf(.)`)
		require.NoError(t, err)
		require.Equal(t, "\xc3", match[1])
		require.Equal(t, settle, time.Since(start))
	})
}

func TestExpectTakesHalfACharacterWhenTheLineEnds(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("caf\xc3"))
	c.end()
	match, err := c.Expect(t.Context(), `caf(.)`)
	require.NoError(t, err)
	require.Equal(t, "\xc3", match[1])
}

// flood prints 40 MiB of lines, a MiB at a time.
func flood(say func([]byte)) {
	block := bytes.Repeat([]byte(strings.Repeat("noise ", 20)+"\r\n"), 1<<20/122)
	for range 41 {
		say(block)
	}
}

func TestExpectContinuesAfterUnsearchedTextWasDropped(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("early\n"))
	expect(t, c, "early")
	flood(c.append)
	c.append([]byte("needle 1\n"))
	_, err := c.Expect(within(t, time.Minute), `^needle (\d+)$`)
	require.ErrorContains(t, err, "bytes of console text were dropped before they were searched: the last 16 MiB are kept. "+
		"The next Expect begins with the oldest text that is kept")
	var lost int
	_, scanErr := fmt.Sscanf(err.Error(), "expect \"^needle (\\\\d+)$\": %d bytes", &lost)
	require.NoError(t, scanErr)
	require.InDelta(t, 16<<20, lost, 9<<20, "between 16 and 32 of 40 MiB are kept")

	require.Equal(t, "1", expect(t, c, `^needle (\d+)$`)[1], "one call fails")
	c.append([]byte("needle 2\n"))
	require.Equal(t, "2", expect(t, c, `^needle (\d+)$`)[1])
}

func TestAWaitingExpectSearchesAllOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(nowhere, Options{})
		go func() {
			flood(func(block []byte) {
				c.append(block)
				time.Sleep(time.Millisecond) // ends when Expect has searched the block
			})
			c.append([]byte("needle 1\n"))
		}()
		match, err := c.Expect(t.Context(), `^needle (\d+)$`)
		require.NoError(t, err)
		require.Equal(t, "1", match[1])
	})
}

func TestACaretMatchesOnceInALongLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(nowhere, Options{})
		go func() {
			c.append([]byte("x"))
			for range 100 {
				c.append(bytes.Repeat([]byte("°="), 1<<10))
				time.Sleep(time.Millisecond)
			}
			c.append([]byte("end\n=end\n"))
		}()
		match, err := c.Expect(t.Context(), `^(=|°|end).*$`)
		require.NoError(t, err)
		require.Equal(t, "=end", match[0], "^ matches neither inside the long line nor at its end")
	})
}
