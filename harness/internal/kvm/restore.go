package kvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
)

// saveAndRestore boots the kernel of a machine to its first byte, saves the machine as a template is saved,
// and restores it in another QEMU. It returns nil if the kernel goes on there to its end: without an initramfs
// and a root file system, Linux panics at the end of its boot, which ends QEMU. Each of the two parts may
// take within of the machine's time.
func saveAndRestore(ctx context.Context, m qemu.Machine, within time.Duration) error {
	m, err := alone(m)
	if err != nil {
		return err
	}
	ram, err := qemu.NewRAM(m.Memory)
	if err != nil {
		return err
	}
	defer ram.Close()
	fd, err := unix.MemfdCreate("guesthouse-state", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	state := os.NewFile(uintptr(fd), "device state")
	defer state.Close()
	version, err := saveAtFirstByte(ctx, m, within, ram, state)
	if err != nil {
		return fmt.Errorf("saving a machine: %w", err)
	}
	// QEMU reads from the descriptor's position.
	if _, err := state.Seek(0, 0); err != nil {
		return err
	}
	if err := runToEnd(ctx, m, within, qemu.RestoreRAM(version), ram, state); err != nil {
		return fmt.Errorf("restoring a machine: %w", err)
	}
	return nil
}

// A probed is a QEMU of a probe with a deadline.
type probed struct {
	*qemu.Process
	line   *console.Console
	output head
}

// startProbe starts QEMU. The context that it returns ends at a deadline in the machine's time, or with ctx.
func startProbe(ctx context.Context, m qemu.Machine, within time.Duration, kind qemu.RAM, ram, state *os.File) (*probed, context.Context, func(), error) {
	p := &probed{}
	began := time.Now()
	var err error
	if p.Process, err = m.StartProbe(&p.output, kind, ram, state); err != nil {
		return nil, nil, nil, err
	}
	p.line = console.New(p.Console, console.Options{})
	clock := machinetime.New(p.PID(), m.CPUs, p.Done, began)
	ctx, cancel := clock.WithDeadline(ctx, machinetime.Moment{}, within, fmt.Errorf("it has not happened within %.2f s", within.Seconds()))
	end := func() {
		p.Kill()
		<-p.line.Done()
		cancel()
		p.Console.Close()
		p.Monitor.Close()
		p.Agent.Close()
	}
	return p, ctx, end, nil
}

// shared makes QEMU leave the memory, which is a file, where it is.
var shared = qmp.Command{Name: "migrate-set-capabilities", Arguments: map[string]any{
	"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": true}}}}

// saveAtFirstByte returns QEMU's version.
func saveAtFirstByte(ctx context.Context, m qemu.Machine, within time.Duration, ram, state *os.File) (version string, err error) {
	p, ctx, end, err := startProbe(ctx, m, within, qemu.SharedRAM, ram, nil)
	if err != nil {
		return "", err
	}
	defer end()
	if err := p.line.WaitByte(ctx); err != nil {
		return "", err
	}
	monitor, err := qmp.New(ctx, p.Monitor, nil, nil)
	if err != nil {
		return "", err
	}
	defer monitor.Close()
	if err := monitor.ExecuteAll(ctx, qmp.Command{Name: "stop"}, shared); err != nil {
		return "", err
	}
	if err := monitor.Give(ctx, "state", state); err != nil {
		return "", err
	}
	if err := monitor.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return "", err
	}
	return monitor.Version(), migrated(ctx, monitor)
}

// migrated waits until the first migration of a QEMU has completed.
func migrated(ctx context.Context, monitor *qmp.Client) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var now struct{ Status string }
		if err := monitor.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU: the migration's status is %s", now.Status)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// runToEnd restores a machine and waits until its kernel ends it.
func runToEnd(ctx context.Context, m qemu.Machine, within time.Duration, kind qemu.RAM, ram, state *os.File) error {
	p, ctx, end, err := startProbe(ctx, m, within, kind, ram, state)
	if err != nil {
		return err
	}
	defer end()
	monitor, err := qmp.New(ctx, p.Monitor, nil, nil)
	if err != nil {
		return err
	}
	defer monitor.Close()
	if err := monitor.ExecuteAll(ctx, shared, qmp.Command{Name: "migrate-incoming",
		Arguments: map[string]string{"uri": fmt.Sprintf("fd:%d", qemu.StateFD)}}); err != nil {
		return err
	}
	// The machine was stopped when it was saved, and is stopped when its state is loaded.
	if err := migrated(ctx, monitor); err != nil {
		return err
	}
	if err := monitor.Execute(ctx, "cont", nil, nil); err != nil {
		return err
	}
	select {
	case <-p.Done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !p.Succeeded() {
		return fmt.Errorf("%w: %s", p.Describe(), p.output.String())
	}
	if err := p.line.WaitByte(ctx); err != nil {
		return errors.New("the restored kernel printed nothing")
	}
	return nil
}
