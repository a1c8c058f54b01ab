package termtext

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func text(parts ...string) string {
	var f Filter
	var dst []byte
	for _, part := range parts {
		dst = f.Append(dst, []byte(part))
	}
	return string(f.End(dst))
}

func TestTheTextIsWhatAPersonReads(t *testing.T) {
	for name, c := range map[string]struct{ output, text string }{
		"a line":                                 {"hello\n", "hello\n"},
		"a line of a terminal":                   {"hello\r\nworld\r\n", "hello\nworld\n"},
		"translated twice":                       {"hello\r\r\nworld\r\r\r\n", "hello\nworld\n"},
		"a line feed before the return":          {"hello\n\rworld\n\r", "hello\nworld\n"},
		"empty lines":                            {"a\r\n\r\nb\n\n\rc", "a\n\nb\n\nc"},
		"colour":                                 {"\x1b[1;31merror:\x1b[0m \x1b[38;2;255;0;0mred\x1b[m\r\n", "error: red\n"},
		"bracketed paste":                        {"\x1b[?2004h$ \x1b[?2004l\r\n", "$ \n"},
		"colour before a line end":               {"done\r\x1b[0m\n", "done\n"},
		"title and clipboard":                    {"\x1b]0;root@host\x07# \x1b]52;c;cm0gLXJm\x1b\\ls\n", "# ls\n"},
		"a device control string":                {"a\x1bP1$r0m\x1b\\b", "ab"},
		"charset and keypad":                     {"\x1b(B\x1b)0\x1b=\x1b>text", "text"},
		"firmware":                               {"\x1bc\x1b[?7l\x1b[2J\x1b[0mLinux version 6.1\r\n", "Linux version 6.1\n"},
		"controls":                               {"a\x00b\x07c\x0e\x0f\x7fd\n", "abcd\n"},
		"tabs":                                   {"a\tb\n\tc\n", "a\tb\n\tc\n"},
		"UTF-8":                                  {"20°C 中文 👩‍💻\n", "20°C 中文 👩‍💻\n"},
		"no UTF-8":                               {"20\xb0C \xff\n", "20\xb0C \xff\n"},
		"a progress bar":                         {"10%\r50%\r100%\n", "10%\n50%\n100%\n"},
		"a progress bar that returns first":      {"\r10%\r50%\r100%\r\n", "10%\n50%\n100%\n"},
		"a progress bar with an indent":          {"\r  5%\r 50%\r100%\n", "  5%\n 50%\n100%\n"},
		"a progress bar that erases":             {"10%\r\x1b[K50%\r\x1b[2K100%\x1b[K\n", "10%\n50%\n100%\n"},
		"a progress bar that clears with spaces": {"working\r       \rdone\n", "working\ndone\n"},
		"a spinner":                              {"wait |\b/\b-\bok\n", "wait |\n/\n-\nok\n"},
		"a key that was deleted":                 {"$ lss\b \b\r\n", "$ lss\n"},
		"a shell's redrawn prompt":               {"uart:~$ \x1b[8D\x1b[J[00:00:01.000] <inf> app: hi\r\nuart:~$ ", "uart:~$ \n[00:00:01.000] <inf> app: hi\nuart:~$ "},
		"an editor in mid-line":                  {"$ echo b\x1b[1Da b\x1b[1D\x1b[1C\r\n", "$ echo b\na b\n"},
		"back and forth":                         {"abc\x1b[2D\x1b[2Cdef\r\x1b[6Cghi\n", "abcdefghi\n"},
		"beyond the left margin":                 {"ab\b\b\b\b\x1b[9D\x1b[2Ccd\n", "abcd\n"},
		"to the right":                           {"Starting\x1b[20G[ OK ]\r\x1b[30Cx\n", "Starting           [ OK ]     x\n"},
		"to the right and no more":               {"done\x1b[60C\r\n", "done\n"},
		"another row":                            {"one\x1b[1Atwo\x1b[5;3Hthree\x1bMfour\n", "one\ntwo\nthree\nfour\n"},
		"a cleared screen":                       {"one\x1b[2J\x1b[Htwo\n", "one\ntwo\n"},
		"a cancelled sequence":                   {"a\x1b[3\x18b\n", "ab\n"},
		"a sequence in another":                  {"a\x1b[3\x1b[1mb\x1b]0;x\x1b[1mc\n", "abc\n"},
		"a line end in a sequence":               {"a\x1b[3\r\n[    1.0] kernel\r\n1mb\n", "a[3\n[    1.0] kernel\n1mb\n"},
		"a title that never ends":                {"a\x1b]0;panic: boom\r\ngoroutine 1 [running]:\n", "a]0;panic: boom\ngoroutine 1 [running]:\n"},
		"an escape that begins no sequence":      {"a\x1b\x01b\x1b[\x7fc\x1b[é\n", "ab[c[é\n"},
		"a sequence without an end":              {"a\x1b[31", "a[31"},
		"form feed":                              {"a\fb\vc", "a\nb\nc"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.text, text(c.output))
			for i := range len(c.output) {
				require.Equal(t, c.text, text(c.output[:i], c.output[i:]), "split at %d", i)
			}
			require.Equal(t, c.text, text(c.text), "the text of a text is the same")
		})
	}
}

func TestASequenceIsHeldBackUntilItIsComplete(t *testing.T) {
	var f Filter
	require.Empty(t, f.Append(nil, []byte("\x1b[3")))
	require.Equal(t, "red", string(f.Append(nil, []byte("1mred"))))
	require.Empty(t, f.End(nil))
}

func TestASequenceThatIsTooLongBecomesText(t *testing.T) {
	long := strings.Repeat("x", maxHeld)
	require.Equal(t, "]"+long+"\n", text("\x1b]"+long+"\x07\n"))
	require.Equal(t, "["+strings.Repeat("1", maxHeld)+"m\n", text("\x1b["+strings.Repeat("1", maxHeld)+"m\n"))
}

// outputs draws short outputs that are full of special cases.
var outputs = rapid.Custom(func(t *rapid.T) string {
	return strings.Join(rapid.SliceOf(rapid.OneOf(
		rapid.SampledFrom([]string{"\r", "\n", "\b", "\t", " ", "\x1b", "\x1b[", "\x1b]", ";", "9", "D", "C", "G", "H", "A", "m",
			"\x07", "\\", "\x18", "\x00", "a", "b", "°", "\xc2", "\xb0", "\x1b[3D", "\x1b[12C", "\x1b[8G", "\x1b[K", "\x1b7", "\x1b8"}),
		rapid.StringN(0, 3, 3),
		rapid.Map(rapid.Byte(), func(b byte) string { return string([]byte{b}) }),
	)).Draw(t, "parts"), "")
})

func TestTheTextIsTheSameHoweverTheOutputIsSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		output := outputs.Draw(t, "output")
		whole := text(output)
		require.NotRegexp(t, "[\x00-\x08\x0b-\x1f\x7f]", whole, "no byte of the text controls a terminal")
		require.Equal(t, whole, text(whole), "the text of a text is the same")
		require.Equal(t, whole, text(strings.Split(output, "")...), "character by character")
		bytewise := make([]string, len(output))
		for i := range len(output) {
			bytewise[i] = output[i : i+1]
		}
		require.Equal(t, whole, text(bytewise...), "byte by byte")

		// A Filter continues after it was saved and restored.
		at := rapid.IntRange(0, len(output)).Draw(t, "split")
		var f, restored Filter
		dst := f.Append(nil, []byte(output[:at]))
		saved, err := json.Marshal(f)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(saved, &restored))
		dst = restored.Append(dst, []byte(output[at:]))
		require.Equal(t, whole, string(restored.End(dst)))
	})
}

// Output before and after a line never hides the line.
func TestALineIsNeverHiddenByOtherOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := outputs.Draw(t, "before"), outputs.Draw(t, "after")
		require.Contains(t, text(before+"\npanic: boom\n"+after), "\npanic: boom\n")
	})
}

func BenchmarkAppend(b *testing.B) {
	for name, line := range map[string]string{
		"plain":    "[    0.123456] pci 0000:00:01.0: [8086:7010] type 00 class 0x010180\n",
		"coloured": "\x1b[32m[    0.123456]\x1b[0m \x1b[33mpci 0000:00:01.0\x1b[0m: [8086:7010] type 00\n",
	} {
		output := []byte(strings.Repeat(line, 1<<20/len(line)))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(output)))
			var f Filter
			dst := make([]byte, 0, len(output))
			for b.Loop() {
				f.Append(dst, output)
			}
		})
	}
}
