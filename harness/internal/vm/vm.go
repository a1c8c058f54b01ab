// Package vm runs a virtual machine: a QEMU process with its guest, and the host's ends of its console,
// monitor and agent lines. It starts the machine, restores it from a template, saves it, and detects
// that the guest has crashed.
//
// It does not know a user's Spec: package harness decides how a machine starts, when it is ready, and
// what its record and result say.
package vm

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/disk"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/outbound"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/wire"
)

// A VM is a QEMU process with its guest. The caller may use its exported fields and must not change them.
type VM struct {
	QEMU    qemu.Machine
	Process *qemu.Process
	QMP     *qmp.Client // nil before Connect
	Console *console.Console
	Agent   *agent.Client
	Disk    *disk.Server     // nil if the machine has no disk
	Filter  *outbound.Filter // nil if the guest may reach everything
	Record  *records.Record
	Clock   *machinetime.Clock

	// Drained is closed when the last byte of the console is in its log.
	Drained chan struct{}

	network   wire.Network       // of the guest; without cards if the guest is on QEMU's user network
	ram       *os.File           // the guest's memory; nil if it cannot be saved
	base      *os.File           // the memory of its template, if ram is a copy of it; nil otherwise
	disks     []qemu.DiskFiles   // the files of the disks that Save copies; nil if there are none, or ram is nil
	from      *template.Template // nil if the machine boots
	crashes   []string           // the user's crash patterns
	migration chan string        // the statuses of migrations, from QEMU's events
	shutdown  atomic.Value       // string: the reason that QEMU gives for its end
	clockLate atomic.Int64       // ClockLate, in nanoseconds
	collected chan struct{}      // see CrashCollected

	connections func() (open, transient string) // nil until SetConnections

	saving   chan struct{}  // holds a token while Save runs
	warm     bool           // warmUp is not needed; guarded by saving
	resuming sync.WaitGroup // goroutines that let the machine go on after Save
}

// A Config describes a VM.
type Config struct {
	QEMU    qemu.Machine
	Args    []string           // of QEMU.Args
	Rules   outbound.Rules     // of the guest's network, if QEMU is Filtered
	Network wire.Network       // of the guest, if QEMU has Cards; SetNetwork can follow
	Crashes []*regexp.Regexp   // the user's crash patterns, besides the known signs
	Record  *records.Record    // gets everything that QEMU and the guest send; Discard closes it
	From    *template.Template // nil for a machine that boots

	// RAM, State and Disks are the files that QEMU inherits; nil if QEMU has none. The caller may close them
	// when Start returns.
	RAM, State *os.File
	Savable    bool     // RAM is shared with QEMU, so that Save can read it
	Base       *os.File // the memory of the template, if RAM is a copy of it that is Savable; nil otherwise
	Disks      []qemu.DiskFiles
}

// Start starts QEMU and begins to read its console and the agent's line. The machine stands still until
// Connect.
func Start(c Config) (*VM, error) {
	v := &VM{
		QEMU: c.QEMU, network: c.Network, Record: c.Record, from: c.From, warm: c.From != nil,
		Drained:   make(chan struct{}),
		migration: make(chan string, 16),
		collected: make(chan struct{}),
		saving:    make(chan struct{}, 1),
	}
	var err error
	if v.Process, err = c.QEMU.Start(c.Args, c.Record.Stderr, c.RAM, c.State, c.Disks); err != nil {
		return nil, err
	}
	v.Clock = machinetime.New(v.Process.PID(), c.QEMU.CPUs, v.Process.Done, c.Record.Start)
	if c.Savable {
		err = v.keepFiles(c)
	}
	if f := v.Process.Frames; err == nil && c.QEMU.Filtered {
		v.Filter, err = outbound.Start(c.Rules, f[0], f[1], f[2])
	}
	if err != nil {
		v.Process.Abandon()
		v.Close()
		return nil, err
	}
	options := console.Options{Record: c.Record.Console, Crashes: c.Crashes, CrashComplete: v.collected}
	var saved *agent.Saved
	if c.From != nil {
		options.State, saved = &c.From.Console, c.From.Agent
	}
	v.crashes = expressions(c.Crashes)
	v.Console = console.New(v.Process.Console, options)
	v.Agent = agent.New(v.Process.Agent, c.Record.Agent, saved)
	go v.collect()
	go v.Agent.Listen()
	if v.Process.Disk != nil {
		v.Disk = disk.New(v.Process.Disk)
		go func() {
			if err := v.Disk.Serve(); err != nil {
				v.Agent.Remark(err.Error())
			}
		}()
	}
	go func() {
		<-v.Console.Done()
		v.Process.Console.Close()
		close(v.Drained)
	}()
	return v, nil
}

// keepFiles keeps the files that Save reads. Close frees them, also after an error.
func (v *VM) keepFiles(c Config) (err error) {
	if v.ram, err = duplicate(c.RAM); err != nil {
		return err
	}
	if c.Base != nil {
		if v.base, err = duplicate(c.Base); err != nil {
			return err
		}
	}
	for _, d := range c.Disks {
		v.disks = append(v.disks, qemu.DiskFiles{})
		kept := &v.disks[len(v.disks)-1]
		for _, f := range d.Saved {
			if f, err = duplicate(f); err != nil {
				return err
			}
			kept.Saved = append(kept.Saved, f)
		}
		if d.Overlay != nil {
			if kept.Overlay, err = duplicate(d.Overlay); err != nil {
				return err
			}
		}
	}
	return nil
}

// duplicate returns another descriptor of a file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func expressions(patterns []*regexp.Regexp) (all []string) {
	for _, p := range patterns {
		all = append(all, p.String())
	}
	return all
}

// SetCrashes replaces the user's crash patterns. The console searches the text that it has kept for them
// too.
func (v *VM) SetCrashes(patterns []*regexp.Regexp) {
	if all := expressions(patterns); !slices.Equal(all, v.crashes) {
		v.crashes = all
		v.Console.SetCrashes(patterns)
	}
}

// SetConnections sets the function that returns the TCP connections of a machine whose cards are on streams: one that
// is open, and one that is about to open or to close, or "" for each. QEMU does not know them.
func (v *VM) SetConnections(f func() (open, transient string)) { v.connections = f }

// SetNetwork sets the network that Continue gives the guest of a prefetched machine.
func (v *VM) SetNetwork(n wire.Network) { v.network = n }

// Configure waits for the agent of a guest that boots, and gives the guest its network.
func (v *VM) Configure(ctx context.Context) error {
	err := v.Agent.AwaitHello(ctx)
	if err == nil {
		err = v.Agent.Configure(ctx, v.network)
	}
	return err
}

// onStreams reports whether the machine's cards are on streams, and not on QEMU's user network.
func (v *VM) onStreams() bool { return len(v.QEMU.Cards) > 0 }

// Within returns a context that ends after d of the machine's time; see package machinetime.
func (v *VM) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return v.Clock.WithTimeout(ctx, d)
}

// ClockLate returns the upper bound of how late a restored guest's clock is.
func (v *VM) ClockLate() time.Duration { return time.Duration(v.clockLate.Load()) }

// ShutdownReason returns the data of QEMU's event SHUTDOWN as JSON, or "" before the event.
func (v *VM) ShutdownReason() string {
	reason, _ := v.shutdown.Load().(string)
	return reason
}

// statusWithin bounds, in wall time, how long Ending waits for QEMU's answer.
const statusWithin = time.Second

// Ending reports whether QEMU has exited, is exiting, or has announced that it will exit. Unless a signal
// kills it, QEMU announces its end before it closes its connections, but the announcement may still be in
// the monitor's socket. Ending therefore asks QEMU for its status: the announcement is read before the
// answer, or before the end of the connection.
func (v *VM) Ending() bool {
	if v.endSeen() {
		return true
	}
	if v.QMP == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin)
	defer cancel()
	err := v.QMP.Execute(ctx, "query-status", nil, nil)
	return errors.Is(err, qmp.ErrClosed) || v.endSeen()
}

// endSeen reports whether QEMU's end can be seen without asking QEMU.
func (v *VM) endSeen() bool {
	select {
	case <-v.Process.Done:
		return true
	default:
	}
	p, ok := sys.LookupProcess(v.Process.PID())
	return !ok || p.Exiting || v.ShutdownReason() != ""
}

// Gone returns why a prefetched machine cannot be used any more, or nil if it can.
func (v *VM) Gone() error {
	select {
	case <-v.Process.Done: // another process has killed QEMU
		return v.Process.Describe()
	case <-v.Agent.Done():
		return v.Agent.Err()
	default:
	}
	if crash := v.Console.Crash(); crash != "" {
		return errors.New(printable.Text(crash))
	}
	return nil
}

// WaitEnd waits until QEMU has exited and everything that it sent has been read.
func (v *VM) WaitEnd() {
	<-v.Process.Done
	<-v.Drained
	<-v.Agent.Done()
	v.Filter.Wait()
	if v.Disk != nil {
		<-v.Disk.Done()
	}
	if v.QMP != nil {
		<-v.QMP.Done()
	}
}

// Discard ends a machine that no caller has received, and removes its record if the record is temporary.
func (v *VM) Discard() {
	v.Process.Kill()
	v.WaitEnd()
	v.Close()
	v.Record.Close(false)
}

// Close frees the files of the machine's memory and disks after the machine's end. It first waits until the work of Save is
// undone.
func (v *VM) Close() {
	v.resuming.Wait()
	for _, c := range v.Process.Cards {
		c.Close() // of a machine that was prefetched and never connected
	}
	for _, f := range []*os.File{v.ram, v.base} {
		if f != nil {
			f.Close()
		}
	}
	for _, d := range v.disks {
		d.Close()
	}
}
