package harness

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/board"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// hardware returns the target that has the machine's QEMU and processor, with the machine's own hardware, and
// the board, which is nil for a machine of Linux.
func (s Spec) hardware() (t target.Target, b *board.Board, err error) {
	if s.Board == "" {
		t, err = target.Lookup(s.Target)
	} else {
		t, b, err = s.boardHardware()
	}
	if err != nil {
		return t, b, err
	}
	if s.Machine != "" {
		t.Machine, t.KVMMachine = s.Machine, ""
	}
	if err := checkMachine(t.Machine); err != nil {
		return t, b, err
	}
	if s.CPU != "" {
		t.CPU, t.KVMCPU = s.CPU, ""
	}
	return t, b, nil
}

func (s Spec) boardHardware() (t target.Target, _ *board.Board, err error) {
	b, err := s.findBoard()
	if err != nil {
		return t, nil, err
	}
	fail := func(format string, args ...any) (target.Target, *board.Board, error) {
		return t, nil, fmt.Errorf("board %s: "+format, append([]any{b.Name}, args...)...)
	}
	switch {
	case s.Target != "" && s.Target != b.Target:
		return fail("its processor is that of the target %s, not %s", b.Target, s.Target)
	case s.Initramfs != "":
		return fail("it boots no initramfs: %s", s.Initramfs)
	case s.Program != "":
		return fail("it runs its image, and no program can be delivered into it: %s", s.Program)
	case s.Accel == KVM:
		return fail("it is emulated, and KVM does not run it")
	}
	for _, words := range s.Cmdline {
		for _, word := range strings.Fields(words) {
			if !strings.HasPrefix(word, "guesthouse.ip=") && !strings.HasPrefix(word, "guesthouse.ip6=") {
				return fail("its image has no kernel command line: %s", word)
			}
		}
	}
	t, err = b.Hardware()
	return t, &b, err
}

// A CustomBoard is a board that guesthouse does not have itself.
type CustomBoard = board.Board

// findBoard returns the board with the Spec's name: the one in the Spec, one of guesthouse's own, or one in the
// nearest file boards.toml, in the directory of the image or above it.
func (s Spec) findBoard() (board.Board, error) {
	if s.CustomBoard != nil {
		if s.CustomBoard.Name != s.Board {
			return board.Board{}, fmt.Errorf("board %s: CustomBoard has the name %s", s.Board, s.CustomBoard.Name)
		}
		_, err := s.CustomBoard.Check()
		return *s.CustomBoard, err
	}
	b, unknown := board.Lookup(s.Board)
	if unknown == nil || s.Kernel == "" {
		return b, unknown
	}
	image, err := filepath.Abs(s.Kernel)
	if err != nil {
		return b, err
	}
	for dir := filepath.Dir(image); ; dir = filepath.Dir(dir) {
		file := filepath.Join(dir, board.FileName)
		all, err := board.ReadFile(file)
		switch {
		case err == nil:
			testcache.Depends(file)
			for _, b := range all {
				if b.Name == s.Board {
					return b, nil
				}
			}
			return b, fmt.Errorf("%w; %s describes others", unknown, file)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return b, err
		case dir == filepath.Dir(dir):
			return b, fmt.Errorf("%w; describe another in a file %s in the directory of the image or above it", unknown, board.FileName)
		}
	}
}

// setBoard completes the description of QEMU's machine with what the board has.
func (p *plan) setBoard() {
	if p.board == nil {
		return
	}
	if _, err := board.Lookup(p.board.Name); err != nil {
		p.spec.CustomBoard = p.board // so that the record can be booted without boards.toml
	}
	p.qemu.Board, p.qemu.Firmware, p.qemu.Globals = true, p.board.Load == board.Firmware, p.board.Globals
	p.qemu.Semihosting = p.board.Semihosting
	if len(p.spec.Loaders) == 0 {
		for _, name := range p.board.Beside {
			p.spec.Loaders = append(p.spec.Loaders, Loader{File: filepath.Join(filepath.Dir(p.spec.Kernel), name)})
		}
	}
	if p.board.DebugExit {
		p.qemu.Devices = append(p.qemu.Devices, "isa-debug-exit,iobase=0xf4,iosize=0x04")
	}
}

// name returns the board's name, or the target's.
func (p *plan) name() string { return cmp.Or(p.spec.Board, p.spec.Target) }

// ownHardware reports whether the Spec replaces hardware of its target.
func (s Spec) ownHardware() bool { return s.Machine != "" || s.CPU != "" || len(s.NICs) > 0 }

// stopsAutoboot reports whether the harness stops a boot loader's countdown.
func (p *plan) stopsAutoboot() bool {
	return p.board != nil && p.board.Autoboot != "" && p.spec.Ready == p.board.Ready
}

// guestStatus returns the status with which the guest has ended QEMU, or nil. QEMU exits with the status that the guest
// gives by semihosting, and with twice the status plus one that the guest gives to the device isa-debug-exit. QEMU
// exits with 1 after a failure of its own, too, and then says why.
func (m *Machine) guestStatus() *Exit {
	if m.plan.board == nil || m.vm.ShutdownReason() != "" {
		return nil
	}
	status, ok := m.vm.Process.Status()
	switch {
	case !ok, status == 1 && reportsFailure(m.vm.Record.StderrText()):
		return nil
	case m.plan.board.Semihosting:
		return &Exit{Status: status, Why: "semihosting"}
	case m.plan.board.DebugExit && status%2 == 1:
		return &Exit{Status: status >> 1, Why: "isa-debug-exit"}
	}
	return nil
}

// qemuReport matches a line of QEMU's error_report, warn_report or info_report.
var qemuReport = regexp.MustCompile(`(?m)^qemu[-\w]*: (warning: |info: )?`)

// reportsFailure reports whether QEMU has printed an error of its own on its standard error. Its network prints
// other lines, for example about frames that a slow card does not take.
func reportsFailure(stderr string) bool {
	return slices.ContainsFunc(qemuReport.FindAllStringSubmatch(stderr, -1), func(found []string) bool { return found[1] == "" })
}

// boardCrashes returns the crash patterns of the board.
func (p *plan) boardCrashes() []string {
	if p.board == nil {
		return nil
	}
	return p.board.Crashes
}
