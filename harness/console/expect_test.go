package console

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// expected returns what Expect finds where a guest prints its output in parts, one each 10 ms,
// while it waits.
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

func TestAMatchDoesNotDependOnHowItsTextComes(t *testing.T) {
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
		{`caf(.)`, "caf\xe9 au lait\n"}, // Latin-1: it never becomes a character
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

func TestAnyMatchOfAnyOutputDoesNotDependOnHowItsTextComes(t *testing.T) {
	patterns := []string{`.°`, `a(.)`, `(.)$`, `^.`, `\W+`, `[^a]b?`, `\S\s`, `b*a`, `a|°|℃`, `a.?.?b`}
	rapid.Check(t, func(rt *rapid.T) {
		pattern := rapid.SampledFrom(patterns).Draw(rt, "pattern")
		output := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"a", "b", "°", "℃", "👩", "\r\n", "\r", "\n", "\x1b[1m", "\xe2\x84", "\xff", " ",
		}), 0, 8).Draw(rt, "output"), "") + "\n" + "abab°\r\n\n a\n" // which all of them match
		whole, err := expected(t, pattern, output)
		require.NoError(rt, err)
		byBytes, err := expected(t, pattern, bytesOf(output)...)
		require.NoError(rt, err)
		require.Equal(rt, whole, byBytes)
	})
}

func TestHalfACharacterIsTakenWhenTheGuestFallsSilent(t *testing.T) {
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

func TestHalfACharacterAtTheEndOfTheConsoleIsTaken(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("caf\xc3"))
	c.end()
	match, err := c.Expect(t.Context(), `caf(.)`)
	require.NoError(t, err)
	require.Equal(t, "\xc3", match[1])
}

// flood is 40 MiB of lines, a MiB at once.
func flood(say func([]byte)) {
	block := bytes.Repeat([]byte(strings.Repeat("noise ", 20)+"\r\n"), 1<<20/122)
	for range 41 {
		say(block)
	}
}

func TestExpectGoesOnAfterTextWasDroppedUnsearched(t *testing.T) {
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
	require.InDelta(t, 16<<20, lost, 9<<20, "of 40 MiB between 16 and 32 are kept")

	require.Equal(t, "1", expect(t, c, `^needle (\d+)$`)[1], "it says so once")
	c.append([]byte("needle 2\n"))
	require.Equal(t, "2", expect(t, c, `^needle (\d+)$`)[1])
}

func TestAnExpectThatWaitsSearchesAllOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(nowhere, Options{})
		go func() {
			flood(func(block []byte) {
				c.append(block)
				time.Sleep(time.Millisecond) // passes when the block has been searched
			})
			c.append([]byte("needle 1\n"))
		}()
		match, err := c.Expect(t.Context(), `^needle (\d+)$`)
		require.NoError(t, err)
		require.Equal(t, "1", match[1])
	})
}

func TestALongLineHasOneBeginning(t *testing.T) {
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
		require.Equal(t, "=end", match[0], "neither a part of the long line nor its end begins one")
	})
}
