package kvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
)

// compare boots the kernel under TCG and then under KVM. If the kernel is silent under TCG, there is no
// time to compare with, and KVM may take all of Within.
func (p *Prober) compare(ctx context.Context, m qemu.Machine) (verdict, error) {
	within, compared := p.Within, ""
	m.KVM = false
	emulated, err := bootToFirstByte(ctx, m, within)
	if err != nil {
		return verdict{}, err
	}
	if emulated.failure == nil {
		within = min(within, emulated.took+p.Margin)
		compared = fmt.Sprintf(" (emulated: %.2f s)", emulated.took.Seconds())
	}
	m.KVM = true
	accelerated, err := bootToFirstByte(ctx, m, within)
	if err != nil {
		return verdict{}, err
	}
	if accelerated.failure == nil {
		v := verdict{Boots: true, Evidence: fmt.Sprintf("the kernel's first byte came after %.2f s%s", accelerated.took.Seconds(), compared)}
		if p.Restore == nil {
			v.NotRestored = "it was not tried"
			return v, nil
		}
		if err := p.Restore(ctx, m, p.Within); err != nil {
			if ctx.Err() != nil {
				return verdict{}, context.Cause(ctx)
			}
			v.NotRestored = strings.Join(strings.Fields(err.Error()), " ")
		}
		return v, nil
	}
	evidence := accelerated.failure.Error() + compared
	if accelerated.output != "" {
		evidence += ": " + accelerated.output
	}
	return verdict{Evidence: evidence}, nil
}

// A boot is how a kernel booted to its first byte on the console.
type boot struct {
	took    time.Duration // up to the first byte, in the machine's time
	failure error         // why there was no byte; nil if there was one
	output  string        // what QEMU itself printed
}

// memory is the least memory of a probed machine, in MiB, so that no probe fails for lack of memory.
const memory = 256

// alone returns the machine as probes boot it: without an initramfs, with a kernel that prints as early as
// it can.
func alone(m qemu.Machine) (qemu.Machine, error) {
	var err error
	m.Initramfs, m.Cmdline, m.Memory = "", m.Target.EarlyConsole, max(m.Memory, memory)
	m.Network, err = qemu.ParseNetwork(nil)
	return m, err
}

// bootToFirstByte boots the kernel without an initramfs, with arguments that make it print as early as it
// can. The error is the cause of ctx, or says why QEMU did not start.
func bootToFirstByte(ctx context.Context, m qemu.Machine, within time.Duration) (b boot, err error) {
	if m, err = alone(m); err != nil {
		return b, err
	}
	var output head
	start := time.Now()
	proc, err := m.StartProbe(&output, qemu.OwnRAM, nil, nil)
	if err != nil {
		return b, err
	}
	defer proc.Monitor.Close()
	defer proc.Agent.Close()
	defer proc.Console.Close()
	line := console.New(proc.Console, console.Options{})
	clock := machinetime.New(proc.PID(), m.CPUs, proc.Done, start)
	late := fmt.Errorf("the kernel printed nothing within %.2f s", within.Seconds())
	byteCtx, cancel := clock.WithDeadline(ctx, machinetime.Moment{}, within, late)
	defer cancel()
	b.failure = line.WaitByte(byteCtx)
	b.took = clock.Now().Machine
	proc.Kill()
	<-line.Done()
	if ctx.Err() != nil {
		return b, context.Cause(ctx)
	}
	if errors.Is(b.failure, console.ErrEnded) {
		b.failure = fmt.Errorf("without a byte on its console, %w", proc.Describe())
	}
	b.output = strings.Join(strings.Fields(output.String()), " ")
	return b, nil
}

// A head keeps the first 4096 bytes that are written to it.
type head struct{ kept bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.kept.Write(p[:min(len(p), 4096-h.kept.Len())])
	return len(p), nil
}

func (h *head) String() string { return h.kept.String() }
