package vm

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"guesthouse.example/harness/internal/qmp"
)

// A Place is where a guest's first processor was.
type Place struct {
	PC   uint64
	User bool // in a program, not in the kernel
}

// registersWithin bounds the wait for QEMU's answer, on the wall clock.
const registersWithin = time.Second

// Registers returns the registers of the guest's processors as QEMU's monitor prints them, or "" if QEMU does not
// answer. It does not stop the guest. TCG then writes the program counter late, but all other registers at the end
// of each block of code. So two equal answers mean that the guest has done the same again.
func (v *VM) Registers(ctx context.Context) string {
	if v.QMP == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, registersWithin)
	defer cancel()
	var text string
	if v.QMP.ExecuteAll(ctx, qmp.Human("info registers -a", &text)) != nil {
		return ""
	}
	return text
}

// placesSeen is how many samples Places takes, one every placeEvery.
const (
	placesSeen = 8
	placeEvery = 20 * time.Millisecond
)

// Places returns where the guest's first processor is at several moments. It stops the guest for each, because TCG
// then has the program counter. It returns nothing if the guest cannot be stopped now, as while it is saved.
func (v *VM) Places(ctx context.Context) (places []Place) {
	if v.QMP == nil {
		return nil
	}
	select {
	case v.saving <- struct{}{}:
		defer func() { <-v.saving }()
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, placesSeen*registersWithin)
	defer cancel()
	tick := time.NewTicker(placeEvery)
	defer tick.Stop()
	for range placesSeen {
		var text string
		if v.QMP.ExecuteAll(ctx, qmp.Command{Name: "stop"}, qmp.Human("info registers", &text), qmp.Command{Name: "cont"}) != nil {
			return places
		}
		p, err := place(text)
		if err != nil {
			return places
		}
		places = append(places, p)
		select {
		case <-tick.C: // the guest runs meanwhile
		case <-ctx.Done():
			return places
		}
	}
	return places
}

var (
	// counter matches the program counter in QEMU's "info registers": of x86_64, x86, arm64, arm.
	counter = regexp.MustCompile(`\b(?:RIP|EIP|PC|R15)=([0-9a-f]{8,16})\b`)
	// level matches the privilege level: CPL of x86, PSTATE's mode of arm64, PSR's mode of arm.
	level = regexp.MustCompile(`\bCPL=([0-3])|\bEL([0-3])[ht]\b|\b(usr)(?:32|26)\b`)
)

// place finds the program counter in the answer of "info registers".
func place(text string) (Place, error) {
	m := counter.FindStringSubmatch(text)
	if m == nil {
		line, _, _ := strings.Cut(text, "\n")
		return Place{}, fmt.Errorf("no program counter in %q", line)
	}
	pc, err := strconv.ParseUint(m[1], 16, 64)
	if err != nil {
		return Place{}, err
	}
	l := level.FindStringSubmatch(text)
	return Place{PC: pc, User: l != nil && (l[1] == "3" || l[2] == "0" || l[3] != "")}, nil
}
