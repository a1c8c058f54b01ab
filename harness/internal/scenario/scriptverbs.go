package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var scriptVerbs = []verb{
	outputVerb("stdout"), outputVerb("stderr"),
	{
		name: "grep", args: "PATTERN FILE", summary: "fail if a file has no match of a pattern",
		bare: true, patterns: []int{0}, keepsOutput: true, minArgs: 2, maxArgs: 2, setup: noFlags(func(c *call) error {
			text, err := os.ReadFile(c.path(c.args[1]))
			if err != nil {
				return err
			}
			return matches(c.args[0], c.args[1], string(text))
		}),
	},
	{
		name: "cat", args: "FILE", summary: "print a file on stdout",
		bare: true, minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			text, err := os.ReadFile(c.path(c.args[0]))
			c.stdout = string(text)
			return err
		}),
	},
	{
		name: "env", args: "NAME=VALUE...", summary: "set variables",
		bare: true, keepsOutput: true, minArgs: 1, maxArgs: -1, setup: noFlags(func(c *call) error {
			for _, arg := range c.args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return wrongf("%q is not NAME=VALUE", arg)
				}
				c.variables[name] = value
			}
			return nil
		}),
	},
	{
		name: "stop", summary: "end the scenario, which passes if its machines are well",
		bare: true, maxArgs: -1, args: "[REASON]", setup: noFlags(func(*call) error { return errStop }),
	},
	{
		name: "cmp", args: "stdout|stderr|FILE FILE", summary: "compare the last output, or a file, with a file",
		detail: []string{"guesthouse check -update writes the first text into the scenario, if the second FILE is one of its files."},
		bare:   true, keepsOutput: true, minArgs: 2, maxArgs: 2, setup: noFlags((*call).compare),
	},
	{
		name: "skip", args: "[REASON]", summary: "end the scenario, which then counts as skipped",
		bare: true, maxArgs: -1, setup: noFlags(func(c *call) error { return &Skipped{strings.Join(c.args, " ")} }),
	},
}

// outputVerb returns the verb that searches an output of the verb before.
func outputVerb(name string) verb {
	return verb{
		name: name, args: "PATTERN", summary: "fail if " + name + " of the last verb with output has no match of a pattern",
		bare: true, patterns: everyArgument, keepsOutput: true, minArgs: 1, maxArgs: 1, setup: noFlags(func(c *call) error {
			text := c.run.stdout
			if name == "stderr" {
				text = c.run.stderr
			}
			return matches(c.args[0], name, text)
		}),
	}
}

// matches returns an error if a text has no match.
func matches(pattern, name, text string) error {
	if !regexp.MustCompile("(?m)" + pattern).MatchString(text) { // run has compiled it before
		return fmt.Errorf("%s does not match %q", name, pattern)
	}
	return nil
}

func (c *call) compare() error {
	read := func(name string) (string, error) {
		switch name {
		case "stdout":
			return c.run.stdout, nil
		case "stderr":
			return c.run.stderr, nil
		}
		text, err := os.ReadFile(c.path(name))
		return string(text), err
	}
	got, err := read(c.args[0])
	if err != nil {
		return err
	}
	want, err := read(c.args[1])
	if err != nil {
		return err
	}
	if got == want {
		return nil
	}
	if c.Update && c.update(c.args[1], got) {
		return nil
	}
	return fmt.Errorf("%s and %s differ:\n%s", c.args[0], c.args[1], difference(got, want))
}

// update puts a text into a file of the archive. It returns false if the archive has no such file.
func (c *call) update(name, text string) bool {
	i := slices.IndexFunc(c.archive.files, func(f file) bool {
		return filepath.Join(c.work, filepath.FromSlash(f.name)) == c.path(name)
	})
	if i < 0 {
		return false
	}
	c.archive.files[i].data = []byte(text)
	c.updated = true
	return true
}

// difference shows the first lines that differ.
func difference(got, want string) string {
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := lineOrEnd(g, i), lineOrEnd(w, i)
		if a != b {
			return fmt.Sprintf("\tline %d is     %s\n\tline %d must be %s", i+1, a, i+1, b)
		}
	}
	return ""
}

func lineOrEnd(lines []string, i int) string {
	if i >= len(lines) {
		return "missing"
	}
	return fmt.Sprintf("%q", lines[i])
}

// writeFile writes the updated archive into the scenario's file.
func (r *run) writeFile() error {
	tmp := r.file + ".new"
	err := os.WriteFile(tmp, r.archive.format(), 0o666)
	if err == nil {
		err = os.Rename(tmp, r.file)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("update the scenario: %w", err)
	}
	return nil
}
