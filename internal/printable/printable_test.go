package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var samples = map[string]string{
	"a line\n\tand the next":                "a line\n\tand the next",
	"20°C, 中文, 👩‍💻, e\u0301":                "20°C, 中文, 👩‍💻, e\u0301",
	`C:\temp \$ \n`:                         `C:\temp \$ \n`,
	"\x1b]52;c;cm0gLXJm\x07":                `\x1b]52;c;cm0gLXJm\x07`,
	"\x00\b\r\x7f":                          `\x00\x08\x0d\x7f`,
	"\u009b2J":                              `\u009b2J`,
	"\x9b2J":                                `\x9b2J`,
	"\xe2\x82":                              `\xe2\x82`,
	"a\xc0\xafb\xed\xa0\x80":                `a\xc0\xafb\xed\xa0\x80`,
	"user\u202e\u2066gnp.exe\u2069":         `user\u202e\u2066gnp.exe\u2069`,
	"\u200e\u200f\u061c one\u2028two\u2029": `\u200e\u200f\u061c one\u2028two\u2029`,
	"\ufffd is a character":                 "\ufffd is a character",
	"":                                      "",
}

func TestTextMakesControlCharactersVisible(t *testing.T) {
	for text, safe := range samples {
		require.Equal(t, safe, Text(text))
		require.Equal(t, safe, Text(safe), "a second time changes nothing")
		require.Equal(t, []string{safe, "x"}, Lines([]string{text, "x"}))
	}
}

// unsafe matches characters that must not reach a terminal. It is independent of the code under test.
var unsafe = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

func TestNothingUnsafeIsLeftOfAnyBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		safe := Text(text)
		require.True(t, utf8.ValidString(safe))
		require.NotRegexp(t, unsafe, safe)
	})
}

// decode returns the bytes that were written to a Writer, from its output.
func decode(t require.TestingT, safe string) string {
	return regexp.MustCompile(`\\x[0-9a-f]{2}|\\u[0-9a-f]{4}`).ReplaceAllStringFunc(safe, func(escape string) string {
		n, err := strconv.ParseUint(escape[2:], 16, 32)
		require.NoError(t, err)
		if escape[1] == 'x' {
			return string([]byte{byte(n)})
		}
		return string(rune(n))
	})
}

func TestAWritersOutputIsSafeAndTheBytesCanBeRestored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]string{`\`, `x1b`, `\x5c`, `\u202e`, "\u202e", "\xe2\x80", "\x8e", "°", "\x1b", "\n"}),
			rapid.String(),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		)).Draw(t, "pieces")
		var out bytes.Buffer
		w := NewWriter(&out)
		for _, p := range pieces {
			n, err := w.Write([]byte(p))
			require.NoError(t, err)
			require.Equal(t, len(p), n)
		}
		require.NoError(t, w.Flush())
		require.NotRegexp(t, unsafe, out.String())
		require.True(t, utf8.ValidString(out.String()))
		require.Equal(t, strings.Join(pieces, ""), decode(t, out.String()))
	})
}

func TestOnlyPartOfACharacterWaitsForMore(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	for text, so := range map[string]string{"20°C": "20°C", "uart:~$ ": "uart:~$ ", "\xe2\x82": "", "a\xff": `a\xff`, "\x1b": `\x1b`, `\`: ""} {
		out.Reset()
		w.Write([]byte(text))
		require.Equal(t, so, out.String(), "%q", text)
		w.Flush()
	}
}

func TestAWriterReturnsTheErrorOfItsDestination(t *testing.T) {
	full := errors.New("no space left on device")
	w := NewWriter(writerFunc(func([]byte) (int, error) { return 0, full }))
	_, err := w.Write([]byte("x"))
	require.ErrorIs(t, err, full)
	_, err = w.Write([]byte(`\`))
	require.NoError(t, err)
	require.ErrorIs(t, w.Flush(), full)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestJSONMeansTheSameAndIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"\x1b\x7f\u009b\u202e\\x1b"})).Draw(t, "text")
		asked, err := json.Marshal(text)
		require.NoError(t, err)
		safe := JSON(asked)
		require.NotRegexp(t, unsafe, string(safe))
		var meant string
		require.NoError(t, json.Unmarshal(safe, &meant))
		require.Equal(t, text, meant)
	})
}
