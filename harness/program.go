package harness

import (
	"context"
	"errors"
	"fmt"

	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/wire"
)

// A delivery is the program of a Spec on its way into a platform.
type delivery struct {
	platform *pendingTemplate   // saved when the platform is ready; nil if it is not to be saved
	unsaved  string             // why the platform could not be saved; empty if it was, or was not to be
	booted   chan struct{}      // closed when the platform is ready, or never will be
	begun    chan struct{}      // closed when the platform has been saved and the delivery begins, or never will
	done     chan struct{}      // closed when the program has been started, or could not be
	err      error              // why the program could not be started
	started  machinetime.Moment // when the delivery began: ReadyWithin counts from then
}

func newDelivery() *delivery {
	return &delivery{booted: make(chan struct{}), begun: make(chan struct{}), done: make(chan struct{})}
}

// checkProgram refuses a program without a platform, and arguments that no program gets. It opens no file.
func (s Spec) checkProgram() error {
	if _, err := (wire.Program{Args: s.Args, Env: s.Env}).Encode(); err != nil {
		return err
	}
	switch {
	case s.Initramfs != "":
	case s.Program != "":
		return fmt.Errorf("program %s: it needs an initramfs that is a platform, such as images.Platform builds", s.Program)
	case len(s.Args)+len(s.Env) > 0:
		return errors.New("arguments and environment: the machine has neither a program nor an initramfs, so no program gets them")
	}
	return nil
}

// programWords returns the words of the kernel's command line that give the program in the initramfs its
// arguments and environment.
func (s Spec) programWords() []string {
	if s.Program != "" {
		return nil // init gets them with the order to start the program
	}
	return initramfs.Words(s.Args, s.Env)
}

// delivers reports whether the program must be delivered into a machine that boots, or that is restored
// from a template if t is not nil.
func (p *plan) delivers(t *template.Template) bool {
	return p.spec.Program != "" && (t == nil || t.Of.Program == nil)
}

// deliver waits until the platform is ready, saves it if it is to be saved, mounts the shares, delivers the
// program and starts it. It ends when the machine ends. It has no deadline: WaitReady has.
func (m *Machine) deliver() {
	d := m.delivery
	defer close(d.done)
	ctx, cancel := m.vm.UnlessCrashed(context.Background())
	defer cancel()
	d.err = m.awaitPlatform(ctx)
	close(d.booted)
	if d.platform != nil {
		if d.err == nil {
			d.unsaved, d.err = d.platform.finish(ctx, m)
		}
		d.platform.Close() // now other machines may start from the platform
	}
	d.started = m.vm.Clock.Now()
	close(d.begun)
	if d.err != nil {
		return
	}
	err := m.mountShares(ctx)
	if err == nil {
		err = m.startProgram(ctx)
	}
	if err != nil {
		d.err = m.vm.OrCrash(ctx, err)
	}
}

// uinitStarts is the line that init prints when it starts the program of the initramfs.
const uinitStarts = `^init: starting ` + initramfs.Program + `$`

// awaitPlatform waits until the platform is ready for its program.
func (m *Machine) awaitPlatform(ctx context.Context) error {
	match, _, err := m.vm.Console.WaitFor(ctx, PlatformReady+"|"+uinitStarts, 0)
	if err == nil && match[0] != initramfs.Ready {
		return fmt.Errorf("the initramfs %s has a guest program of its own, %s: to run %s, build an initramfs without one (images.Platform)",
			m.plan.spec.Initramfs, initramfs.Program, m.plan.spec.Program)
	}
	return err
}

// startProgram delivers the program to the guest and makes init start it.
func (m *Machine) startProgram(ctx context.Context) error {
	if err := m.vm.AwaitAgent(ctx); err != nil {
		return err
	}
	unlock, err := m.hostFiles.lock(ctx)
	if err != nil {
		return err
	}
	err = m.deliverFile(ctx, m.plan.spec.Program, initramfs.Program)
	unlock()
	if err != nil {
		return err
	}
	return m.vm.Agent.Run(ctx, wire.Program{Args: m.plan.spec.Args, Env: m.plan.spec.Env})
}

// untilReady returns a context that ends when the console should have shown a pattern: ReadyWithin after
// from, or when the guest hangs.
func (m *Machine) untilReady(ctx context.Context, from machinetime.Moment, pattern string) (context.Context, context.CancelFunc) {
	shown := &lateError{fmt.Sprintf("its console has not shown %q", pattern)}
	late := fmt.Errorf("%w: not ready within %v: %w", ErrGuest, m.plan.spec.ReadyWithin, shown)
	ctx, cancel := m.vm.Clock.WithDeadline(ctx, from, m.plan.spec.ReadyWithin, late)
	ctx, stop := m.vm.Clock.WithWatchdog(ctx, m.plan.spec.ReadyWithin/hangsAfter,
		machinetime.Signs{Printed: m.vm.Console.Len, Registers: m.vm.Registers}, shown)
	return ctx, func() {
		stop()
		cancel()
	}
}

// awaitProgram waits until the program has been started, and returns the moment from which ReadyWithin
// counts. The time in which the platform is saved does not count.
func (m *Machine) awaitProgram(ctx context.Context) (machinetime.Moment, error) {
	d := m.delivery
	if d == nil { // the initramfs or the template has the program
		return m.begin, nil
	}
	wait := func(ctx context.Context, step <-chan struct{}) error {
		select {
		case <-step:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	bootCtx, cancel := m.untilReady(ctx, m.begin, PlatformReady)
	err := wait(bootCtx, d.booted)
	cancel()
	if err == nil {
		err = wait(ctx, d.begun)
	}
	if err != nil {
		return m.begin, err
	}
	deliveryCtx, cancel := m.untilReady(ctx, d.started, m.plan.spec.Ready)
	defer cancel()
	if err := wait(deliveryCtx, d.done); err != nil {
		return m.begin, err
	}
	return d.started, d.err
}

// platformName is what a list of templates says for a machine without a guest program.
const platformName = "platform"

// guestName names the guest program of a Spec for people.
func (s Spec) guestName() string {
	switch {
	case s.Origin != nil && s.Origin.Guest != "":
		return s.Origin.Guest
	case s.Program != "":
		return s.Program
	case s.Ready == PlatformReady:
		return platformName
	}
	return ""
}
