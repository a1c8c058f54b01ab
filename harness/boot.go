package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/testcache"
)

// Boot starts the machine of a Spec and waits until it is ready. The context bounds the boot, not the
// machine's life; Close ends it. An error of a machine that was started is a *BootError.
func Boot(ctx context.Context, s Spec) (*Machine, error) {
	m, err := Start(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := m.WaitReady(ctx); err != nil {
		m.closeWithin(ctx)
		return nil, err
	}
	return m, nil
}

// Start starts the machine of a Spec and returns while the machine boots, so that the caller can use its
// console during the boot. WaitReady waits until the machine is ready. A restored machine is ready when
// Start returns.
func Start(ctx context.Context, s Spec) (*Machine, error) {
	started := time.Now()
	p, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	p.started = started
	from := s.From
	if from == nil {
		from = plain{}
	}
	m, err := from.start(ctx, p)
	if err != nil {
		return nil, err
	}
	if m.delivery != nil {
		go m.deliver()
	}
	return m, nil
}

// A Source is what a machine starts from: [Cold], a [*Template] or a [*TemplateCache].
type Source interface {
	start(ctx context.Context, p *plan) (*Machine, error)
}

// Cold is the Source of a machine that boots its kernel, even if a layer such as package harnesstest would
// restore it from a template.
var Cold Source = cold{}

type cold struct{}

func (cold) start(ctx context.Context, p *plan) (*Machine, error) {
	return p.launch(ctx, how{why: "asked for"})
}

// plain is the Source of a Spec without From.
type plain struct{}

func (plain) start(ctx context.Context, p *plan) (*Machine, error) {
	return p.launch(ctx, how{})
}

// prepare checks a Spec, finds its QEMU and chooses the acceleration.
func (s Spec) prepare(ctx context.Context) (*plan, error) {
	p, err := s.check()
	if err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	if err := p.findQEMU(); err != nil {
		return nil, err
	}
	p.noteInputs()
	if err := p.chooseAccel(ctx, hostKVM); err != nil {
		return nil, err
	}
	if err := qemu.ProbeSandbox(ctx, p.qemu.Binary); err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	return p, nil
}

// noteInputs tells the go command's cache of test results what this test depends on, besides QEMU.
func (p *plan) noteInputs() {
	if !testcache.Active() {
		return
	}
	files := []string{p.spec.Kernel, p.spec.Initramfs, p.spec.Program}
	for _, l := range p.spec.Loaders {
		files = append(files, l.File)
	}
	for _, file := range files {
		// A file whose name has its hash does not change. The cache that holds it updates the file's
		// time, which would make the go command run the test again.
		if sum, err := regular.SHA256(file); file != "" && (err != nil || !strings.Contains(filepath.Base(file), sum)) {
			testcache.Depends(file)
		}
	}
	if t, ok := p.spec.From.(*Template); ok && t != nil {
		testcache.Depends(t.files.Files()...)
	}
	p.noteDisks()
	if len(p.spec.QEMUArgs) > 0 {
		testcache.Never() // they may name files
	}
}

// A how says how a machine starts.
type how struct {
	from    *template.Template // nil for a machine that boots
	savable bool               // the restored machine is to be saved
	why     string             // why the machine does not start in a faster mode, for the Result
}

// restored restores the machine from a template, which must be of a machine with an identity.
func (p *plan) restored(ctx context.Context, h how, id template.Identity) (*Machine, error) {
	if err := h.from.Fits(id); err != nil {
		return nil, err
	}
	m, err := p.launch(ctx, h)
	if failed := (*BootError)(nil); errors.As(err, &failed) && ctx.Err() == nil {
		line, _, _ := strings.Cut(failed.Stderr, "\n")
		return nil, fmt.Errorf("restoring it failed: %w %s", failed.Err, printable.Text(line))
	}
	return m, err
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// launch starts QEMU and boots or restores the machine. If the machine has a delivery then, the caller
// starts it.
func (p *plan) launch(ctx context.Context, h how) (*Machine, error) {
	t, mode, began := h.from, BootCold, time.Now()
	if t != nil {
		select {
		case restoring <- struct{}{}:
			defer func() { <-restoring }()
		case <-ctx.Done():
			return nil, fmt.Errorf("boot %s: %w", p.name(), context.Cause(ctx))
		}
		mode = BootRestored
		if p.delivers(t) {
			mode = BootDelivered
		}
	}
	files, err := p.openMemory(ctx, t, h.savable || p.spec.Savable)
	if err != nil {
		return nil, err
	}
	defer files.close()
	disks, err := p.openDisks(t)
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	defer closeDisks(disks)
	attached, err := p.attach()
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	started := false
	defer func() {
		if !started {
			attached.close(errNeverRan)
		}
	}()
	network, err := attached.network()
	if err == nil && t != nil {
		err = attached.canTake(t)
	}
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	machine := p.qemu
	machine.Cards = attached.cards()
	args := machine.Args(files.kind, disks)
	rec, err := records.Create(p.spec.Dir, p.spec, append([]string{p.qemu.Binary}, args...))
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	c := p.vm(args, rec, t, files, disks)
	c.Network = network
	v, err := vm.Start(c)
	if err != nil {
		rec.Close(false)
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	started = true
	m := p.machine(v, attached, began, mode, h.why)
	m.writeResult(func(*Result) {})
	go m.hash()
	err = m.captureUserNetwork()
	if err == nil && t == nil {
		err = m.connect(false) // a guest without an agent asks the network for its addresses
	}
	if err == nil {
		m.forwards, err = v.Connect(ctx, p.qemu.Forwards)
		m.noteVersion()
	}
	if err == nil && t != nil {
		err = m.connect(t.Agent != nil) // without an agent, its cards have the addresses of the template
	}
	if err == nil {
		err = m.relay()
	}
	if err != nil {
		return nil, m.giveUp(ctx, err)
	}
	if t == nil && p.qemu.AwaitsAddresses() {
		go m.configureNetwork()
	}
	if p.delivers(t) {
		m.delivery = newDelivery()
	}
	go m.watch()
	return m, nil
}

// errNeverRan is why a machine that could not be started has left its networks.
var errNeverRan = errors.New("the machine could not be started")

// machine returns the Machine of a VM. Its result counts seconds from began.
func (p *plan) machine(v *vm.VM, attached attachments, began time.Time, mode BootMode, why string) *Machine {
	m := &Machine{
		vm: v, plan: p, began: began, hostFiles: newHostFiles(), attached: attached,
		hashed: make(chan struct{}),
		ended:  make(chan struct{}),
		result: Result{PID: v.Process.PID(), State: StateBooting, Test: p.spec.Test, Target: p.spec.Target, Board: p.spec.Board, Boot: mode, Why: why,
			Accel: p.accel.accel, AccelWhy: p.accel.why, AccelEvidence: p.accel.evidence,
			Net: attached.describe()},
	}
	if p.spec.CoverDir != "" {
		m.covered = &coverage{dir: p.spec.CoverDir}
		v.Agent.OnCovered(m.covered.add)
	}
	v.SetConnections(attached.connections)
	m.life = guestconn.NewLife(v.Ending)
	return m
}

// giveUp ends a machine before watch runs, and returns a *BootError that wraps err.
func (m *Machine) giveUp(ctx context.Context, err error) error {
	m.vm.Process.Kill()
	m.vm.WaitEnd()
	m.leaveNetworks(err)
	m.fail(err, !errors.Is(ctx.Err(), context.Canceled))
	close(m.ended)
	boot := m.bootError(err)
	m.closeWithin(ctx)
	return boot
}

// restoring holds a token for each machine that is being restored, because a restore takes a
// processor: on two processors, 32 machines had answered after 2.4 s with 2 to 4 tokens, and after
// 2.8 s without.
var restoring = make(chan struct{}, runtime.GOMAXPROCS(0)+1)
