package scenario

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var everyArgument = []int{-1}

var consoleVerbs = []verb{
	{
		name: "expect", args: "[-m NAME] [-within TIME] PATTERN", summary: "wait until the console shows a match of a pattern",
		detail: []string{
			"The pattern is a regular expression of Go in which ^ and $ match at the ends of a line. The search begins behind the last match. The echo of a line that send has typed does not match.",
			"A named group sets a variable: after expect 'port (?P<port>\\d+)' $port is the number.",
		},
		patterns: everyArgument, minArgs: 1, maxArgs: 1, setup: noFlags((*call).expect),
	},
	{
		name: "in-order", args: "[-m NAME] [-within TIME] PATTERN...", summary: "expect several patterns, one after the other",
		patterns: everyArgument, minArgs: 1, maxArgs: -1, setup: noFlags((*call).expect),
	},
	{
		name: "unordered", args: "[-m NAME] [-within TIME] PATTERN...", summary: "expect several patterns, in any order",
		patterns: everyArgument, minArgs: 1, maxArgs: -1,
		setup: noFlags(func(c *call) error { return c.m.Console().ExpectAll(c.ctx, c.args...) }),
	},
	{
		name: "once", args: "[-m NAME] [-within TIME] PATTERN", summary: "expect a pattern, and then reject it",
		patterns: everyArgument, minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			if err := c.expect(); err != nil {
				return err
			}
			return c.m.Console().Reject(c.args[0])
		}),
	},
	{
		name: "reject", args: "[-m NAME] PATTERN", summary: "fail if the console shows a match, from the last match until the machine ends",
		patterns: everyArgument, minArgs: 1, maxArgs: 1,
		setup: noFlags(func(c *call) error { return c.m.Console().Reject(c.args[0]) }),
	},
	{
		name: "idle", args: "[-m NAME] TIME", summary: "fail if the console shows anything within a time",
		minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			d, err := time.ParseDuration(c.args[0])
			if err != nil {
				return &UsageError{err}
			}
			return c.m.Console().Idle(c.run.ctx, d)
		}),
	},
	{
		name: "send", args: "[-m NAME] LINE", summary: "type a line on the console",
		minArgs: 1, maxArgs: -1,
		setup: noFlags(func(c *call) error { return c.m.Console().Send(c.ctx, strings.Join(c.args, " ")) }),
	},
	{
		name: "type", args: "[-m NAME] TEXT", summary: "type text on the console, without a line end",
		detail:  []string{`TEXT has the escapes of a Go string: \r is the Enter key, \t the Tab key, \x1b the Escape key.`},
		minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			text, err := unescape(c.args[0])
			if err != nil {
				return &UsageError{err}
			}
			return c.m.Console().Type(c.ctx, text)
		}),
	},
	{
		name: "key", args: "[-m NAME] KEY...", summary: "press keys on the console",
		detail:  []string{"A key is ctrl-a to ctrl-z, " + strings.Join(keyNames(), ", ") + "."},
		minArgs: 1, maxArgs: -1, setup: noFlags(func(c *call) error {
			for _, name := range c.args {
				key, err := keyOf(name)
				if err != nil {
					return &UsageError{err}
				}
				if err := c.m.Console().Type(c.ctx, key); err != nil {
					return err
				}
			}
			return nil
		}),
	},
}

// expect expects the patterns one after the other, and sets the variables of their named groups.
func (c *call) expect() error {
	for _, pattern := range c.args {
		match, err := c.m.Console().Expect(c.ctx, pattern)
		if err != nil {
			return err
		}
		c.stdout += match[0] + "\n"
		for i, name := range regexp.MustCompile(pattern).SubexpNames() {
			if name == "" {
				continue
			}
			c.variables[name] = match[i]
		}
	}
	return nil
}

// keys are the bytes that the keys of a terminal send.
var keys = map[string]string{
	"enter": "\r", "tab": "\t", "escape": "\x1b", "backspace": "\x7f", "space": " ",
	"up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D",
	"home": "\x1b[H", "end": "\x1b[F", "delete": "\x1b[3~",
}

func keyNames() (names []string) {
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func keyOf(name string) ([]byte, error) {
	if key, ok := keys[name]; ok {
		return []byte(key), nil
	}
	if letter, ok := strings.CutPrefix(name, "ctrl-"); ok && len(letter) == 1 && letter[0] >= 'a' && letter[0] <= 'z' {
		return []byte{letter[0] - 'a' + 1}, nil
	}
	return nil, fmt.Errorf("unknown key %q: the keys are ctrl-a to ctrl-z, %s", name, strings.Join(keyNames(), ", "))
}

// unescape returns the bytes of a text with the escapes of a Go string.
func unescape(text string) ([]byte, error) {
	plain, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(text, `\"`, `"`), `"`, `\"`) + `"`)
	if err != nil {
		return nil, fmt.Errorf("%q has a wrong escape: it may have those of a Go string, such as \\n and \\x1b", text)
	}
	return []byte(plain), nil
}
