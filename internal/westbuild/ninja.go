package westbuild

import (
	"path"
	"strings"
)

// runCommand returns the QEMU command of the target "run" in a file of Ninja, or nil.
func runCommand(ninja []byte) []string {
	target := ""
	for line := range strings.SplitSeq(strings.ReplaceAll(string(ninja), "$\n", ""), "\n") {
		if outputs, ok := strings.CutPrefix(line, "build "); ok {
			first, _, _ := strings.Cut(outputs, " ")
			target = path.Base(strings.TrimSuffix(first, ":"))
			continue
		}
		command, ok := strings.CutPrefix(line, "  COMMAND = ")
		if !ok || target != "run_qemu" && target != "run" {
			continue
		}
		var one []string
		for _, word := range append(words(unescape(command)), "&&") {
			if word != "&&" {
				one = append(one, word)
				continue
			}
			if len(one) > 0 && strings.HasPrefix(path.Base(one[0]), "qemu-system-") {
				return one
			}
			one = nil
		}
	}
	return nil
}

// unescape returns the text of a value in a file of Ninja.
func unescape(value string) string {
	return strings.NewReplacer("$$", "$", "$ ", " ", "$:", ":").Replace(value)
}

// words splits a command into the words that the shell sees. CMake quotes them with backslashes and double or
// single quotes, and uses nothing else of the shell.
func words(command string) (all []string) {
	var word strings.Builder
	var quote byte
	begun := false
	end := func() {
		if begun {
			all = append(all, word.String())
		}
		word.Reset()
		begun = false
	}
	for i := 0; i < len(command); i++ {
		c := command[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(command):
			i++
			word.WriteByte(command[i])
			begun = true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			end()
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	end()
	return all
}
