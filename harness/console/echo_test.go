package console

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// searchable returns the text that Expect searches, with a dot for each hidden byte.
func searchable(c *Console) string {
	now := c.textFrom(0)
	return strings.ReplaceAll(string(now.echoes.hide(now.text, 0)), string(rune(echoByte)), "·")
}

// sent returns a console whose guest printed the text before. Then a line was typed, and the guest
// printed the text after.
func sent(before, line, after string) *Console {
	c := newConsole(nowhere, Options{})
	c.append([]byte(before))
	typed := c.expectEcho([]byte(line + "\r"))
	c.append([]byte(after))
	typed()
	return c
}

func TestTheEchoOfALineIsHidden(t *testing.T) {
	for name, c := range map[string]struct{ before, line, after, want string }{
		"behind a prompt": {"uart:~$ ", "sh nosuchprogram all-good",
			"sh nosuchprogram all-good\r\nsh: nosuchprogram: not found\r\nuart:~$ ",
			"uart:~$ ·························\nsh: nosuchprogram: not found\nuart:~$ "},
		"behind another prompt": {"hello\r\n(gdb) ", "bt", "bt\r\nNo stack.\r\n(gdb) ", "hello\n(gdb) ··\nNo stack.\n(gdb) "},
		"behind a later prompt": {"booting\r\n", "help", "done\r\nnsh> help\r\nhelp usage\r\n",
			"booting\ndone\nnsh> ····\nhelp usage\n"},
		"on an unfinished line":            {"$ ", "uptime", "uptime", "$ ······"},
		"whose end has not arrived":        {"$ ", "uptime", "upt", "$ ···"},
		"after a log line":                 {"$ ", "net sockets", "\n[00] <inf> app: hi\n$ net sockets\r\n0 services\r\n", "$ \n[00] <inf> app: hi\n$ ···········\n0 services\n"},
		"after a log line over the prompt": {"$ ", "uptime", "\x1b[2D\x1b[J[00] <inf> app: hi\r\n$ uptime\r\n5 ms\r\n", "$ \n[00] <inf> app: hi\n$ ······\n5 ms\n"},
		"with a log line in it": {"$ ", "net sockets", "net so\n[00] <inf> app: hi\n$ ckets\r\n0 services\r\n",
			"$ ······\n[00] <inf> app: hi\n$ ·····\n0 services\n"},
		"with a log line at a space in it": {"$ ", "net sockets", "net \n[00] <inf> app: hi\n$ sockets\r\n0 services\r\n",
			"$ ····\n[00] <inf> app: hi\n$ ·······\n0 services\n"},
		"with other text in it": {"", "sh nosuchprogram all-good", "sh nosucsh: exit status 127\r\n$ hprogram all-\n[00] <inf> app: hi\n$ good\r\nno\r\n",
			"········sh: exit status 127\n$ ·············\n[00] <inf> app: hi\n$ ····\nno\n"},
		"divided by text that begins like the rest of the line": {"$ ", "net sockets", "net so[    1.0] c\r\nckets\r\n", "$ ······[    1.0] c\n·····\n"},
		"divided by text that looks like the rest of the line":  {"$ ", "net sockets", "net sock: oh\r\n$ ckets\r\n", "$ ······ck: oh\n$ ·····\n"},
		"that is shown again after a log line": {"$ ", "net sockets", "net so\x1b[8D\x1b[K[00] <inf> app: hi\r\n$ net sockets\r\n0 services\r\n",
			"$ ······\n[00] <inf> app: hi\n$ ···········\n0 services\n"},
		"that is shown again for each key": {"> ", "abc", "\r\x1b[K> a\r\x1b[K> ab\r\x1b[K> abc\r\nyes\r\n", "> \n> ·\n> ··\n> ···\nyes\n"},
		"that an editor breaks": {"$ ", "echo one two three", "echo one t\r\nwo three\r\none two three\r\n",
			"$ ··········\n········\none two three\n"},
		"that an editor breaks at a space": {"$ ", "echo one two", "echo one \rtwo\r\none two\r\n", "$ ·········\n···\none two\n"},
		"typed before the prompt":          {"", "uptime", "uptime\r\nready\r\n$ 5 ms\r\n", "······\nready\n$ 5 ms\n"},
		"typed before the prompt, and shown there again": {"", "uptime", "uptime\r\nready\r\n$ uptime\r\n5 ms\r\n",
			"······\nready\n$ ······\n5 ms\n"},
		"of several lines":                   {"$ ", "one\ntwo", "one\r\n1\r\n$ two\r\n2\r\n$ ", "$ ···\n1\n$ ···\n2\n$ "},
		"of several lines, all echoed first": {"$ ", "one\ntwo", "one\r\ntwo\r\n1\r\n$ two\r\n2\r\n$ ", "$ ···\n···\n1\n$ ···\n2\n$ "},
		"of an interrupt":                    {"$ ", "\x03", "^C\r\n$ ", "$ ··\n$ "},
		"of keys":                            {"$ ", "a\x1b[Ab", "a^[[Ab\r\n", "$ ······\n"},
		"of keys that are obeyed":            {"$ ", "lss\x7f", "lss\b \b\r\nbin\r\n", "$ ···\nbin\n"},
		"of blanks":                          {"$ ", " a\tb ", " a\tb \r\nok\r\n", "$ ·····\nok\n"},
		"in UTF-8":                           {"$ ", "größe °C", "größe °C\r\nok\r\n", "$ ···········\nok\n"},
		"once":                               {"", "hello", "hello\r\nhello\r\n", "·····\nhello\n"},
		"once behind a prompt":               {"$ ", "ls", "ls\r\n$ ls\r\n", "$ ··\n$ ls\n"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, searchable(sent(c.before, c.line, c.after)))
			for i := range len(c.after) {
				now := sent(c.before, c.line, c.after[:i])
				now.append([]byte(c.after[i:]))
				require.Equal(t, c.want, searchable(now), "searched after %d bytes", i)
			}
		})
	}
}

// A Linux terminal echoes in the middle of a line that a program prints.
func TestTheEchoOfAGuestThatIsKnownToEchoIsHiddenAnywhere(t *testing.T) {
	for name, c := range map[string]struct{ line, after, want string }{
		"before the end of a line": {"net sockets", "command not foundnet sockets\r\n\r\n$ 0 services\r\n",
			"command not found···········\n\n$ 0 services\n"},
		"between two lines": {"net sockets", "not foundnet so\r\n$ ckets\r\n0 services\r\n", "not found······\n$ ·····\n0 services\n"},
		"with a line in it": {"sh nosuchprogram all-good", "sh nosuc[00] <inf> app: hihprogram a\r\nll-good\r\n",
			"········[00] <inf> app: hi··········\n·······\n"},
		"with text in it at many places": {"sh nosuchprogram all-good", "sh n. osuchpr. og. ram all. -good\r\n",
			"····. ·······. og. ·······. ·····\n"},
		"except for its end": {"sh nosuchprogram all-good", "sh nosuchprogram all-gosh: exit status 1\r\n$ od\r\n",
			"·······················sh: exit status 1\n$ od\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range len(c.after) + 1 {
				now := sent("$ ", "uptime", "uptime\r\n5 ms\r\n")
				typed := now.expectEcho([]byte(c.line + "\r"))
				now.append([]byte(c.after[:i]))
				require.NotContains(t, searchable(now), "all-good")
				now.append([]byte(c.after[i:]))
				typed()
				require.Equal(t, "$ ······\n5 ms\n"+c.want, searchable(now), "searched after %d bytes", i)
			}
		})
	}
}

func TestTwoTypedLinesDoNotShareAnEcho(t *testing.T) {
	c := sent("$ ", "uptime", "uptime\r\n5 ms\r\n")
	c.expectEcho([]byte("hello\rhello\r"))()
	c.append([]byte("output hello\r\noutput hello\r\noutput hello\r\n"))
	require.Equal(t, "$ ······\n5 ms\noutput ·····\noutput ·····\noutput hello\n", searchable(c))
}

func TestAMissedEchoDoesNotDisturbTheNextOne(t *testing.T) {
	c := sent("$ ", "uptime", "uptime\r\n5 ms\r\n$ ")
	one := "sh nosuchprogram all-good-1 and some more words that make the line long"
	two := strings.Replace(one, "1", "2", 1)
	c.expectEcho([]byte(one + "\r"))()
	c.append([]byte(one[:60] + "[00] <inf> app: hi\r\n$ no\r\n$ "))
	c.expectEcho([]byte(two + "\r"))()
	c.append([]byte(two + "\r\nno\r\n$ "))
	require.NotContains(t, searchable(c), "all-good")
	require.NotContains(t, searchable(c), "words")
	require.Equal(t, 2, strings.Count(searchable(c), "\nno\n")+strings.Count(searchable(c), "$ no\n"))
}

func TestTheEndOfALineBehindAPromptIsAnEcho(t *testing.T) {
	c := sent("$ ", "uptime", "uptime\r\n5 ms\r\nnot found")
	typed := c.expectEcho([]byte("sh nosuchprogram all-good and some words\r"))
	for _, b := range bytesOf("\r\n$ all-good and some words\r\n") {
		c.append([]byte(b))
		require.NotContains(t, searchable(c), "all-good")
	}
	typed()
	c.append([]byte("all-good\r\n"))
	require.Contains(t, searchable(c), "\n$ ·······················\nall-good\n")
}

func TestOtherTextIsNotHidden(t *testing.T) {
	for name, c := range map[string]struct{ before, line, after string }{
		"an answer without an echo":              {"Name? ", "Bob", "hello Bob\nyou said: Bob\n"},
		"the end of a line":                      {"$ ", "ok", "\nnot ok\n"},
		"text before the typed line":             {"ok\n$ ok\n$ ", "ok", "\nyes\n"},
		"an answer to an empty line":             {"$ ", "", "\n$ "},
		"a line that begins like the typed line": {"$ ", "ok computer", "\nok: what?\n$ "},
		"a line after 64 KiB of other text":      {"$ ", "ok", "\n" + strings.Repeat("noise\n", 11000) + "ok\n"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.before+c.after, searchable(sent(c.before, c.line, c.after)))
		})
	}
}

func TestAnIncompleteEchoIsShownAfterFiveSeconds(t *testing.T) {
	for name, after := range map[string]string{
		"a line":              "ok\r\n",
		"a line that goes on": "ok comes later\r\n",
		"an unfinished line":  "ok",
		"a line above more text than Expect searches again": "ok\r\n" + strings.Repeat("noise\r\n", 2*overlap/7),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := sent("", "ok computer", after)
				start := time.Now()
				_, err := c.Expect(t.Context(), `^ok\b`)
				require.NoError(t, err)
				require.InDelta(t, partialWithin, time.Since(start), float64(settle))
			})
		})
	}
}

// Expect does not match an echo, wherever output divides the echo and whenever Expect searches.
func TestNoPatternMatchesATypedLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.StringMatching(`(sh )?nosuch(program)? all-good( [a-z]{0,60})?`).Draw(t, "line")
		others := []string{"\n[00:00] <inf> app: all is well\n$ ", "sh: exit status 1\r\n$ ", "[ 1.0] kernel\r\n"}
		echoes := rapid.Bool().Draw(t, "the guest is known to echo")
		if echoes {
			others = append(others, "a part of a line", "\r\n")
		}
		other := rapid.SampledFrom(others).Draw(t, "other text")
		places := rapid.SliceOfN(rapid.IntRange(0, len(line)-1), 0, 2).Draw(t, "offsets of the other text")
		var out strings.Builder
		for i := range len(line) {
			for _, at := range places {
				if at == i {
					out.WriteString(other)
				}
			}
			out.WriteByte(line[i])
		}
		out.WriteString("\r\n")
		echo := out.String()
		begin := func() *Console {
			if echoes {
				return sent("$ ", "uptime", "uptime\r\n5 ms\r\n$ ")
			}
			return sent("$ ", "", "")
		}
		for i := range len(echo) + 1 {
			c := begin()
			typed := c.expectEcho([]byte(line + "\r"))
			c.append([]byte(echo[:i]))
			typed()
			require.NotContains(t, searchable(c), "all-good", "%q", echo[:i])
		}
		if echoes && len(places) > 1 {
			return // a short part is not found, and the answer is taken for the last part
		}
		c := begin()
		typed := c.expectEcho([]byte(line + "\r"))
		c.append([]byte(echo))
		typed()
		c.append([]byte("all-good\r\n$ "))
		require.Equal(t, 1, strings.Count(searchable(c), "all-good"), "%q", searchable(c))
	})
}

// echoing returns the console of a guest that echoes each line and prints the answer to it.
func echoing(t *testing.T, prompt string, answer func(line string) string) *Console {
	near, far := net.Pipe()
	c := New(near, Options{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.WriteString(far, prompt)
		var line []byte
		buf := make([]byte, 1)
		for {
			if _, err := far.Read(buf); err != nil {
				return
			}
			if buf[0] != '\r' {
				line = append(line, buf[0])
				far.Write(buf)
				continue
			}
			io.WriteString(far, "\r\n"+answer(string(line))+prompt)
			line = nil
		}
	}()
	t.Cleanup(func() { far.Close(); near.Close(); <-c.Done(); <-ended })
	return c
}

func send(t *testing.T, c *Console, line string) {
	t.Helper()
	require.NoError(t, c.Send(within(t, 10*time.Second), line))
}

// unexpected calls Expect with a pattern that does not match, and returns its error.
func unexpected(t *testing.T, c *Console, pattern string) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), settle*3/2, context.DeadlineExceeded)
	defer cancel()
	match, err := c.Expect(ctx, pattern)
	require.ErrorIs(t, err, context.DeadlineExceeded, "%q", match)
	return err.Error()
}

func TestAnEchoIsNoAnswer(t *testing.T) {
	c := echoing(t, "uart:~$ ", func(line string) string { return "sh: nosuchprogram: not found\r\n" })
	expect(t, c, `uart:~\$ $`)
	send(t, c, "sh nosuchprogram all-good")
	require.Equal(t, `expect "all-good": context deadline exceeded
	the pattern matches in the line "sh nosuchprogram all-good", but that is only the echo of what Send typed
	the console has shown since the last match:
		"sh nosuchprogram all-good"
		"sh: nosuchprogram: not found"
		"uart:~$ "`, unexpected(t, c, "all-good"))
	expect(t, c, `^sh: nosuchprogram: not found$`)
	expect(t, c, `^uart:~\$ $`)
}

func TestAnAnswerMayEqualTheCommand(t *testing.T) {
	c := echoing(t, "$ ", func(line string) string { return line + "\r\n" })
	send(t, c, "hello")
	require.Equal(t, []string{"$ \nhello", "hello"}, expect(t, c, `\$ .*\n(hello)$`), "the match leaves out the echo")
	send(t, c, "hello")
	expect(t, c, "^hello$")
	require.Contains(t, unexpected(t, c, "hello"), `the pattern matches in the line "hello", but that line is before the end of the last match`)
}

func TestAPromptWithACommandIsNotFree(t *testing.T) {
	answer := make(chan string)
	c := echoing(t, "$ ", func(string) string { return <-answer })
	send(t, c, "sleep 1000")
	unexpected(t, c, `\$ $`)
	answer <- "done\r\n"
	expect(t, c, `\$ $`)
	require.Contains(t, unexpected(t, c, "^done$"), `the pattern matches in the line "done", but that line is before the end of the last match
	the console has shown nothing since the last match`)
}

func TestTheEchoOfTypeMatches(t *testing.T) {
	c := echoing(t, "$ ", func(string) string { return "" })
	require.NoError(t, c.Type(within(t, 10*time.Second), []byte("hello\r")))
	expect(t, c, `^\$ hello$`)
}

func TestExpectDoesNotWaitForAnEcho(t *testing.T) {
	g := newGuestLine(t)
	go io.Copy(io.Discard, g)
	g.print("Password: ")
	send(t, g.console, "secret")
	g.print("welcome, secret agent\r\n")
	expect(t, g.console, "^Password: welcome, secret agent$")
}

func TestARestoredConsoleHidesTheSameEchoes(t *testing.T) {
	c := sent("$ ", "echo all-good", "echo all-good\r\n")
	state := c.State()
	restored := newConsole(nowhere, Options{State: &state})
	require.Equal(t, "$ ·············\n", searchable(restored))
}

func TestAnErrorEscapesTheGuestsText(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("\u009b2J\u202e\xff" + strings.Repeat("x", 300) + "\n"))
	err := unexpected(t, c, "y")
	require.Contains(t, err, "the console has shown so far:\n\t\t\"\\u009b2J\\u202e\\xffxxx")
	require.Contains(t, err, "xxx\"…")
	require.Less(t, len(err), 400)
}

func TestAnErrorShowsTheLastLines(t *testing.T) {
	c := newConsole(nowhere, Options{})
	c.append([]byte("1\n2\n3\n4\n5\n6\n7\n"))
	expect(t, c, "1\n")
	require.Contains(t, unexpected(t, c, "x"), "\n\tthe console has shown since the last match (the last 5 lines):\n\t\t\"3\"\n\t\t\"4\"\n\t\t\"5\"\n\t\t\"6\"\n\t\t\"7\"")
}
