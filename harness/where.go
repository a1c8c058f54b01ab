package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"guesthouse.example/harness/internal/symbols"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/printable"
)

// A lateError says that the guest has not done in time what a boot waits for.
type lateError struct{ what string }

func (e *lateError) Error() string { return e.what }

// symbols returns the symbols of the machine's image. Linux's own kernel files have none.
func (m *Machine) symbols() *symbols.Table {
	files := []string{m.plan.spec.Kernel}
	for _, l := range m.plan.spec.Loaders {
		files = append(files, l.File)
	}
	return symbols.Open(files...)
}

// withPlaces adds to the error of a guest that is late where its processor is.
func (m *Machine) withPlaces(ctx context.Context, err error) error {
	if late := (*lateError)(nil); !errors.As(err, &late) || !m.runs() || ctx.Err() != nil {
		return err
	}
	if places := describePlaces(m.vm.Places(ctx), m.symbols()); places != "" {
		return fmt.Errorf("%w; its processor was %s", err, places)
	}
	return err
}

// describePlaces counts equal places, the most frequent first.
func describePlaces(places []vm.Place, table *symbols.Table) string {
	type counted struct {
		text string
		n    int
	}
	var all []counted
	for _, p := range places {
		text := fmt.Sprintf("at %#x", p.PC)
		if name := table.Find(p.PC); name != "" {
			text = "in " + name
		} else if p.User {
			text += " in a program"
		}
		if i := slices.IndexFunc(all, func(c counted) bool { return c.text == text }); i >= 0 {
			all[i].n++
		} else {
			all = append(all, counted{text, 1})
		}
	}
	slices.SortStableFunc(all, func(a, b counted) int { return b.n - a.n })
	var words []string
	for _, c := range all[:min(len(all), 3)] {
		words = append(words, fmt.Sprintf("%s (%d of %d samples)", c.text, c.n, len(places)))
	}
	return printable.Text(strings.Join(words, ", "))
}

// codeAddress matches a number that may be the address of code, as systems print registers and traces: "EIP: 0x00101abc",
// "ELR_ELn: 0x0000000040001234", "x30: 0x40001234", "PC: 40001234". The first group is the name of a program counter.
var codeAddress = regexp.MustCompile(`(?i)(?:\b(pc|r15/pc|eip|rip|elr\w*|m?epc)\b[)\]]?\s*[:=]?\s*)?\b(?:0x)?([0-9a-f]{6,16})\b`)

const mostCode = 8 // places in a report; a trace has the nearest first

// crashCode names the functions whose addresses the guest has printed in its crash.
func (m *Machine) crashCode(evidence []string) []string {
	if m.vm.Console.Crash() == "" {
		return nil
	}
	return codeIn(evidence, m.symbols())
}

func codeIn(lines []string, table *symbols.Table) (code []string) {
	seen := make(map[uint64]bool)
	for _, line := range lines {
		for _, match := range codeAddress.FindAllStringSubmatch(line, -1) {
			address, err := strconv.ParseUint(match[2], 16, 64)
			if err != nil || seen[address] || len(code) == mostCode {
				continue
			}
			seen[address] = true
			// A return address is that of the instruction after the call. So is the program counter of a call
			// that does not return, such as k_panic: it may be the first address of the next function.
			name := table.Find(address)
			if match[1] == "" || table.Begins(address) {
				name = table.Find(address - 1)
			}
			if name != "" {
				code = append(code, fmt.Sprintf("%#x is in %s", address, name))
			}
		}
	}
	return code
}
