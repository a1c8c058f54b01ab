package harness

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"guesthouse.example/harness/internal/crash"
	"guesthouse.example/harness/internal/executable"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/board"
	"guesthouse.example/internal/kernelfile"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/testcache"
)

// A plan is a Spec that has been checked and completed, with the values that Start derives from it. A plan
// does not change after Start has prepared it.
type plan struct {
	spec    Spec           // with its defaults and absolute paths; Accel is the user's
	qemu    qemu.Machine   // with the acceleration that was chosen
	relayed []qemu.Forward // ports that this process forwards, because QEMU does not reach Spec.Net
	board   *board.Board   // nil for a machine of Linux
	disks   []template.DiskIdentity
	crashes []*regexp.Regexp // Spec.Crashes, which match at the start of a line
	accel   choice
	started time.Time // when Start was called
}

// A choice is the acceleration of a machine, the reason for it, and the evidence of the probe of KVM.
type choice struct {
	accel         Accel
	why, evidence string
	notRestored   error // under KVM: why machines are not restored; nil if the probe has restored one
}

// plan completes a Spec and refuses one that cannot boot with any files. It opens no file
// but boards.toml.
func (s Spec) plan() (*plan, error) {
	t, b, err := s.hardware()
	if err != nil {
		return nil, err
	}
	p := &plan{spec: s, board: b}
	p.spec.Target = t.Name
	if b != nil {
		p.spec.Memory, p.spec.CPUs = cmp.Or(s.Memory, b.Memory), cmp.Or(s.CPUs, b.CPUs)
		p.spec.Ready = cmp.Or(s.Ready, b.Ready)
	}
	if p.spec.Memory == 0 {
		p.spec.Memory = defaultMemory
	}
	if p.spec.Memory < 1 {
		return nil, fmt.Errorf("memory of %d MiB: the least is 1, and Debian's kernels take %d", p.spec.Memory, debianMemory)
	}
	if _, total, ok := sys.Memory(); ok && int64(p.spec.Memory) > total>>20 {
		return nil, fmt.Errorf("memory of %d MiB: this host has %d", p.spec.Memory, total>>20)
	}
	if most := t.MaxMemory; most > 0 && p.spec.Memory > most {
		return nil, fmt.Errorf("memory of %d MiB: a machine of the target %s has at most %d", p.spec.Memory, t.Name, most)
	}
	if p.spec.CPUs == 0 {
		p.spec.CPUs = 1
	}
	if p.spec.CPUs < 1 || p.spec.CPUs > t.MaxCPUs {
		return nil, fmt.Errorf("%d processors: a machine of the target %s has 1 to %d", p.spec.CPUs, t.Name, t.MaxCPUs)
	}
	if err := checkDisks(s.Disks); err != nil {
		return nil, err
	}
	if p.spec.Ready == "" {
		p.spec.Ready = DefaultReady
	}
	if _, err := regexp.Compile(p.spec.Ready); err != nil {
		return nil, fmt.Errorf("ready pattern: %w", err)
	}
	for _, expr := range slices.Concat(s.Crashes, p.boardCrashes()) {
		re, err := crash.Compile(expr)
		if err != nil {
			return nil, fmt.Errorf("crash pattern %q: %w", expr, err)
		}
		p.crashes = append(p.crashes, re)
	}
	if p.spec.FirstByteWithin == 0 {
		p.spec.FirstByteWithin = defaultFirstByte
	}
	if p.spec.ReadyWithin == 0 {
		p.spec.ReadyWithin = defaultReadyIn
	}
	if p.spec.QEMU == "" {
		p.spec.QEMU = t.QEMU
	}
	if p.spec.Outbound, err = s.Outbound.check(); err != nil {
		return nil, err
	}
	switch s.Accel {
	case "", TCG, KVM:
	default:
		return nil, fmt.Errorf("unknown acceleration %q: write %q or %q", s.Accel, TCG, KVM)
	}
	if err := s.checkProgram(); err != nil {
		return nil, err
	}
	if p.spec.Share, err = s.completeShares(); err != nil {
		return nil, err
	}
	if err := s.checkNetworks(); err != nil {
		return nil, err
	}
	forwards, err := parseForwards(s.Ports)
	if err != nil {
		return nil, err
	}
	network, err := qemu.ParseNetwork(s.Cmdline)
	if err != nil {
		return nil, err
	}
	p.qemu = qemu.Machine{
		Binary: p.spec.QEMU, Target: t,
		Kernel: s.Kernel, Initramfs: s.Initramfs, Cmdline: slices.Concat(s.Cmdline, s.programWords()),
		Memory: p.spec.Memory, CPUs: p.spec.CPUs, Network: network, Forwards: forwards, Filtered: p.spec.Outbound.filtered() && len(s.Net) == 0,
		Cards: make([]string, len(s.Net)), UserArgs: s.QEMUArgs,
	}
	p.qemu.Capture = s.Capture && len(s.Net) == 0
	if len(s.Net) > 0 {
		p.qemu.Forwards, p.relayed = nil, forwards
	}
	p.setBoard()
	if err := p.setCards(); err != nil {
		return nil, err
	}
	if err := p.checkCmdline(); err != nil {
		return nil, err
	}
	p.use(choice{accel: TCG})
	if s.Accel == KVM {
		p.use(choice{accel: KVM, notRestored: errNotProbed})
	}
	return p, nil
}

// checkCmdline refuses a kernel command line that Linux would cut off. The words of Args and Env are at its
// end.
func (p *plan) checkCmdline() error {
	n, limit := len(p.qemu.KernelCmdline()), p.qemu.Target.CmdlineMax
	if p.spec.Initramfs == "" || n <= limit { // another kernel may accept a longer one
		return nil
	}
	words, hint := "", ""
	if all := p.spec.programWords(); len(all) > 0 {
		words = fmt.Sprintf(", %d of them for the program's arguments and environment", len(strings.Join(all, " ")))
		hint = ": deliver the program with Spec.Program, which has no such limit"
	}
	return fmt.Errorf("kernel command line: it has %d bytes%s, and the kernel of %s reads %d%s", n, words, p.spec.Target, limit, hint)
}

// errNotProbed is why a machine under KVM has no templates before the probe of KVM.
var errNotProbed = errors.New("KVM was not probed")

// use sets the acceleration.
func (p *plan) use(c choice) { p.accel, p.qemu.KVM = c, c.accel == KVM }

// parseForwards parses Spec.Ports.
func parseForwards(ports []string) (forwards []qemu.Forward, err error) {
	seen := make(map[qemu.Forward]bool)
	for _, text := range ports {
		f, err := qemu.ParseForward(text)
		if err != nil {
			return nil, err
		}
		if seen[f] {
			return nil, fmt.Errorf("port %s is listed twice", text)
		}
		seen[f] = true
		forwards = append(forwards, f)
	}
	return forwards, nil
}

// check completes a Spec and refuses one that cannot boot, before anything is started.
func (s Spec) check() (*plan, error) {
	p, err := s.plan()
	if err != nil {
		return nil, err
	}
	if err := kernelfile.Check(s.Kernel, p.qemu.Target); err != nil {
		return nil, err
	}
	if s.Initramfs != "" {
		if err := regular.Check("initramfs", s.Initramfs); err != nil {
			return nil, err
		}
	}
	if s.Program != "" {
		if _, err := executable.CheckStatic(s.Program, p.qemu.Target); err != nil {
			return nil, err
		}
	}
	for _, share := range p.spec.Share {
		if err := share.checkDirectory(); err != nil {
			return nil, err
		}
	}
	if err := checkLoaders(p.spec.Loaders); err != nil {
		return nil, err
	}
	// A process that repeats the run may have another working directory.
	files := []*string{&p.spec.Kernel, &p.spec.Initramfs, &p.spec.Program}
	if strings.Contains(p.spec.QEMU, "/") {
		files = append(files, &p.spec.QEMU)
	}
	p.spec.Loaders = slices.Clone(p.spec.Loaders)
	for i := range p.spec.Loaders {
		files = append(files, &p.spec.Loaders[i].File)
	}
	for _, file := range files {
		if *file != "" {
			if *file, err = filepath.Abs(*file); err != nil {
				return nil, err
			}
		}
	}
	if err := p.findDisks(); err != nil {
		return nil, err
	}
	p.qemu.Kernel, p.qemu.Initramfs, p.qemu.Binary = p.spec.Kernel, p.spec.Initramfs, p.spec.QEMU
	for _, l := range p.spec.Loaders {
		p.qemu.Loaders = append(p.qemu.Loaders, qemu.Loader(l))
	}
	return p, nil
}

// findQEMU finds the emulator's binary. Its error is a *MissingQEMUError.
func (p *plan) findQEMU() error {
	binary, err := testcache.LookPath(p.spec.QEMU)
	if err != nil {
		missing := &MissingQEMUError{Binary: p.spec.QEMU, Err: err}
		if p.spec.QEMU == p.qemu.Target.QEMU {
			missing.Package = p.qemu.Target.QEMUPackage
		}
		return missing
	}
	p.qemu.Binary = binary
	return nil
}
