package scenario

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/internal/target"
)

// noMachine is the Boot of scenarios that boot none.
func noMachine(context.Context, string, string, []string, io.Writer) (harness.Spec, error) {
	return harness.Spec{}, errors.New("no machine here")
}

// check runs a script that boots no machine, and returns its error and its log.
func check(t *testing.T, text string, o Options) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.txtar")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
	if o.Boot == nil {
		o.Boot = noMachine
	}
	var log bytes.Buffer
	err := Run(t.Context(), file, o, &log)
	if err != nil && o.Update {
		return log.String(), err
	}
	if o.Update {
		text, readErr := os.ReadFile(file)
		require.NoError(t, readErr)
		return string(text), nil
	}
	return log.String(), err
}

func TestAWrongLineIsExplained(t *testing.T) {
	for script, want := range map[string]string{
		"boot":               "test.txtar:1: boot: no machine here",
		"\n\n  expct x  # y": `test.txtar:3: expct x  # y: unknown verb "expct"; guesthouse help scenario lists the verbs`,
		"expect x":           "test.txtar:1: expect x: no machine runs: boot one before",
		"! expect x":         "no machine runs: boot one before",
		"expect -m other x":  `no machine has the name "other": no machine has been booted`,
		"expect":             "it has 0 arguments (usage: expect [-m NAME] [-within TIME] PATTERN)",
		"udp -nonsense 1 x":  "flag provided but not defined: -nonsense (usage: udp ",
		"expect -within 1 x": `invalid value "1" for flag -within`,
		"link":               "it has 0 arguments (usage: link [-m NAME] up|down)",
		"boot -m":            "-m needs the name of the machine",
		"boot -m a/b":        `the name "a/b" of a machine: want letters, digits and hyphens`,
		"restore here":       `no state of the name "here" is saved`,
		"[arm65] boot":       `unknown condition "arm65": the conditions are x86, x86_64, arm, arm64, kvm, restored`,
		"[restored] stop":    "no machine runs: boot one before",
		"[arm]":              "the line has no verb",
		"# only a comment":   `test.txtar: the scenario has no verb before its first line "-- NAME --"`,
		"-- script --\nboot": "the scenario has no verb",
		"! ? stop":           "! or ? is there twice",
		"send 'x":            "a quote has no end",
		"env x":              `"x" is not NAME=VALUE`,
		"stdout $nothing":    `the variable "nothing" is not set; a $ that begins no variable needs single quotes`,
		"stdout (":           "missing closing )",
		"stdout x":           `stdout does not match "x"`,
		"! env a=b":          "it succeeded, and the ! before it expects a failure",
		"cmp stdout missing": "missing: no such file or directory",
		"cmp a b\n-- a --\n1\n2\n-- b --\n1\n3\n": "a and b differ:\n\tline 2 is     \"2\\n\"\n\tline 2 must be \"3\\n\"",
		"-- a --\n-- a --":                        `the file "a" is there twice`,
	} {
		_, err := check(t, script+"\n", Options{})
		require.ErrorContains(t, err, want, script)
	}
	_, err := check(t, "-- ../outside --\n", Options{})
	require.ErrorContains(t, err, "outside")
	require.ErrorContains(t, Run(t.Context(), "/nonexistent.txtar", Options{}, io.Discard), "no such file")
}

func TestAScenarioSkipsItself(t *testing.T) {
	_, err := check(t, "[arm] skip no reason at all\nstdout x\n", Options{Target: "arm"})
	skipped := (*Skipped)(nil)
	require.ErrorAs(t, err, &skipped)
	require.Equal(t, "no reason at all", skipped.Reason)
	_, err = check(t, "[!arm] skip\nstop\n", Options{Target: "arm"})
	require.NoError(t, err)
}

func TestUpdateWritesWhatCmpGets(t *testing.T) {
	text := "# comment\ncat a\ncmp stdout b\n-- a --\nnew\n-- b --\nold\n"
	_, err := check(t, text, Options{})
	require.ErrorContains(t, err, "stdout and b differ")
	updated, err := check(t, text, Options{Update: true})
	require.NoError(t, err)
	require.Equal(t, strings.Replace(text, "old", "new", 1), updated)
	_, err = check(t, "cat a\ncmp stdout $WORK/c\n-- a --\nnew\n", Options{Update: true})
	require.ErrorContains(t, err, "no such file")
}

// A scenario that fails after a difference leaves its file as it was.
func TestAFailedScenarioUpdatesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.txtar")
	text := "cat a\ncmp stdout b\nstdout x\n-- a --\nnew\n-- b --\nold\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
	require.Error(t, Run(t.Context(), file, Options{Update: true, Boot: noMachine}, io.Discard))
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestScriptsThatSaveMachinesAreKnown(t *testing.T) {
	for script, saves := range map[string]bool{
		"save x": true, "[arm] save x": true, "! save x": true, "boot\n  save x": true,
		"# save x\nstop": false, "send save": false, "boot": false,
	} {
		r := &run{archive: parseArchive([]byte(script))}
		_, err := r.parse()
		require.NoError(t, err, script)
		require.Equal(t, saves, r.savable, script)
	}
}

// A line that no machine can make right fails the scenario before a machine boots.
func TestAWrongLineIsFoundBeforeTheFirstBoot(t *testing.T) {
	for _, line := range []string{"expct", "[arm] expct", "[arm65] stop", "send 'x"} {
		boots := 0
		_, err := check(t, "boot\n"+line+"\n", Options{Target: "x86", Boot: func(context.Context, string, string, []string, io.Writer) (harness.Spec, error) {
			boots++
			return harness.Spec{}, errors.New("no machine here")
		}})
		require.ErrorContains(t, err, "test.txtar:2: ", line)
		require.Zero(t, boots, line)
	}
}

func TestTheReferenceHasEveryVerbAndCondition(t *testing.T) {
	var b strings.Builder
	require.NoError(t, Help(&b))
	for _, v := range verbs {
		require.Contains(t, b.String(), "\n"+v.name+" "+v.args+"\n\t"+v.summary+"\n")
	}
	for _, name := range append(target.Names(), "restored", "kvm") {
		require.Contains(t, b.String(), "\n["+name+"]")
	}
}

func TestEscapesAndKeys(t *testing.T) {
	for text, want := range map[string]string{`a\r\n`: "a\r\n", `\x00"\"`: "\x00\"\"", "é": "é", `\\`: `\`} {
		got, err := unescape(text)
		require.NoError(t, err, text)
		require.Equal(t, want, string(got))
	}
	_, err := unescape(`\q`)
	require.EqualError(t, err, `"\\q" has a wrong escape: it may have those of a Go string, such as \n and \x1b`)
	key, err := keyOf("ctrl-c")
	require.NoError(t, err)
	require.Equal(t, "\x03", string(key))
	_, err = keyOf("ctrl-")
	require.ErrorContains(t, err, `unknown key "ctrl-": the keys are ctrl-a to ctrl-z, backspace,`)
}

func TestVariablesInPatternsStandForTheirText(t *testing.T) {
	for _, v := range verbs {
		switch v.name {
		case "expect":
			require.Equal(t, []int{2}, v.expressions("-within", "1s", "x"))
			require.Nil(t, v.expressions("-nonsense", "x"))
		case "udp":
			require.Equal(t, []int{3}, v.expressions("-hex", "1", "data", "x"))
		case "unordered":
			require.Equal(t, []int{0, 1}, v.expressions("a", "b"))
		}
	}
}

func TestLinesAreSplitAsDocumented(t *testing.T) {
	r := &run{variables: map[string]string{"a": "x.y", "b": "two words"}}
	for line, want := range map[string][]string{
		"send  one\ttwo":           {"one", "two"},
		"send 'one two' # comment": {"one two"},
		"send 'it''s' '' a'b c'd":  {"it's", "", "ab cd"},
		"send $a ${b} '$a' x$a":    {"x.y", "two words", "$a", "xx.y"},
		"send a#b":                 {"a"},
		"send x$":                  {"x$"},
		"send 'a#b'\r":             {"a#b"},
	} {
		s, err := parseLine(1, line)
		require.NoError(t, err, line)
		require.Equal(t, "send", s.verb)
		var got []string
		for _, w := range s.args {
			text, err := r.expand(w, false)
			require.NoError(t, err, line)
			got = append(got, text)
		}
		require.Equal(t, want, got, line)
	}
	s, err := parseLine(1, "[arm] [!kvm] ? expect '^'$a'$'")
	require.NoError(t, err)
	require.Equal(t, []condition{{"arm", false}, {"kvm", true}}, s.conditions)
	require.Equal(t, either, s.want)
	text, err := r.expand(s.args[0], true)
	require.NoError(t, err)
	require.Equal(t, `^x\.y$`, text, "in a pattern a variable stands for its text")
	for _, line := range []string{"", "  ", "# a comment", "  # another"} {
		s, err := parseLine(1, line)
		require.NoError(t, err)
		require.Nil(t, s, line)
	}
}

func TestAnArchiveIsWrittenAsItWasRead(t *testing.T) {
	for _, text := range []string{"", "script\n", "# a\nb\n-- f/g --\ndata\n--not--\n-- --\n-- h --\n", "-- f --\n\n"} {
		require.Equal(t, text, string(parseArchive([]byte(text)).format()))
	}
	a := parseArchive([]byte("stop\r\n-- a --\r\nlast"))
	require.Equal(t, []file{{"a", []byte("last\n")}}, a.files)
}
