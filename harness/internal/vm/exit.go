package vm

import (
	"regexp"
	"slices"
	"strconv"

	"guesthouse.example/internal/wire"
)

// ProgramExit returns how the guest's program ended, after the end of the machine. It asks the agent's client,
// and then looks for init's last line on the console. It returns nil if neither has it.
func (v *VM) ProgramExit() *wire.Exit {
	if reported := v.Agent.Exit(); reported != nil {
		return reported
	}
	return exitOnConsole(v.Console.Tail(lastWordsWithin))
}

// lastWords matches init's last line on the console. Init prints it even if the kernel has no driver for
// the agent's port.
var lastWords = regexp.MustCompile(`^init: /bin/uinit has ended: (?:exit status (\d{1,3})|signal (\d{1,2}) \([^)]*\)); the machine powers off$`)

const lastWordsWithin = 20 // the number of last lines among which lastWords is expected

// exitOnConsole returns the exit in init's last line, or nil. It searches from the end, because a program
// may have printed such a line before.
func exitOnConsole(lines []string) *wire.Exit {
	for _, line := range slices.Backward(lines) {
		if m := lastWords.FindStringSubmatch(line); m != nil {
			status, _ := strconv.Atoi(m[1]) // the pattern matches one of the two
			signal, _ := strconv.Atoi(m[2])
			return &wire.Exit{Status: status, Signal: signal}
		}
	}
	return nil
}
