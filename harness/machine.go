package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/outbound"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/sys"
)

// A Machine is a running emulated machine. Its methods may be called from any
// goroutine.
type Machine struct {
	plan     *plan
	proc     *qemu.Process
	qmp      *qmp.Client
	console  *console.Console
	agent    *agent.Client
	filter   *outbound.Filter // nil if the guest may reach all
	record   *record
	clock    *machinetime.Clock
	asked    time.Time          // when somebody asked for it
	begin    machinetime.Moment // then; its deadlines count from there
	forwards []qemu.Forward
	ram      *os.File // the guest's memory, if Save can read it

	migration chan string            // how a migration comes along
	waits     bool                   // it was prefetched and belongs to nobody yet
	saving    chan struct{}          // holds a token while Save runs
	resuming  sync.WaitGroup         // what lets the machine go on after Save
	template  atomic.Pointer[making] // what the machine becomes when it is ready

	shutdown  atomic.Value  // string: QEMU's reason for its end
	closing   atomic.Bool   // Close has been called
	drained   chan struct{} // closed when the last byte of its console is in the log
	collected chan struct{} // closed when the rest of a crash is, or the console has ended without one
	hashed    chan struct{} // closed when the record has the hashes of what was booted
	ended     chan struct{} // closed when QEMU is gone and everything it said is recorded
	err       error         // how the machine ended; set before ended is closed
	exit      *Exit         // how the guest's program ended, if that is known; set before ended is closed
	typedOff  atomic.Bool   // Shutdown has asked a guest without an agent
	close     sync.Once

	life *guestconn.Life // of connections; ends with the crash of the guest or the end of the machine

	resultMu sync.Mutex
	result   Result
	sealed   bool // Close has finished the record
}

// watch waits for the end of QEMU and says how it ended.
func (m *Machine) watch() {
	go m.live()
	<-m.proc.Done
	<-m.drained
	<-m.qmp.Done()
	<-m.agent.Done()
	m.filter.Wait()
	m.fail(m.end(), true)
	close(m.ended)
}

// live ends the machine's life, and with it the connections, when the guest has crashed and printed the
// rest of its crash, or when the machine has ended.
func (m *Machine) live() {
	select {
	case <-m.collected:
		if err := m.crashed(); err != nil {
			m.life.End(err)
			return
		}
	case <-m.ended:
	}
	<-m.ended
	switch {
	case m.err != nil:
		m.life.End(fmt.Errorf("the machine has ended: %w", m.err))
	case m.closing.Load():
		m.life.End(guestconn.ErrClosed)
	default:
		m.life.End(guestconn.ErrPoweredOff)
	}
}

// ending reports whether QEMU is gone, going, or has announced that it goes.
func (m *Machine) ending() bool {
	select {
	case <-m.proc.Done:
		return true
	default:
	}
	p, ok := sys.LookupProcess(m.proc.PID())
	return !ok || p.Exiting || m.shutdown.Load() != nil
}

// end returns why a machine that is gone has ended; nil is a power-off.
func (m *Machine) end() error {
	exit, asked := m.programEnd()
	m.exit = exit
	if err := m.crashed(); err != nil {
		return err
	}
	reason, _ := m.shutdown.Load().(string)
	switch {
	case m.closing.Load():
		return nil
	case strings.Contains(reason, `"guest-shutdown"`):
		return poweredOff(exit, asked)
	case strings.Contains(reason, `"guest-reset"`) && m.plan.spec.Memory < debianMemory:
		return fmt.Errorf("%w: it restarted instead of powering off; it may need more than %d MiB of memory", ErrGuest, m.plan.spec.Memory)
	case strings.Contains(reason, `"guest-reset"`):
		return fmt.Errorf("%w: it restarted instead of powering off", ErrGuest)
	case strings.Contains(reason, `"guest-panic"`):
		return fmt.Errorf("%w: it panicked", ErrGuest)
	}
	return m.proc.Describe()
}

// fail records how the machine ended. That somebody changed their mind is an
// error but no failure.
func (m *Machine) fail(err error, failure bool) {
	err = m.besides(err)
	m.err = err
	seconds := time.Since(m.asked).Seconds()
	<-m.hashed
	m.writeResult(func(r *Result) {
		r.State, r.Seconds = "ended", seconds
		r.PowerOff, r.Exit = m.agent.PowerOffReason(), m.exit
		if err != nil && failure && r.Error == "" {
			r.Error = err.Error()
		}
		if r.Error != "" {
			r.State = "failed"
		}
	})
}

// besides adds to an error that the record is not whole.
func (m *Machine) besides(err error) error {
	switch broken := m.record.failure(); {
	case broken == nil || errors.Is(err, broken):
		return err
	case err == nil:
		return broken
	default:
		return fmt.Errorf("%w; %w", err, broken)
	}
}

// hash records the hashes of the kernel and the initramfs, while the machine boots.
func (m *Machine) hash() {
	defer close(m.hashed)
	kernel, _ := regular.SHA256(m.plan.spec.Kernel) // what is gone by now has none
	initramfs := ""
	if m.plan.spec.Initramfs != "" {
		initramfs, _ = regular.SHA256(m.plan.spec.Initramfs)
	}
	m.writeResult(func(r *Result) { r.KernelSHA256, r.InitramfsSHA256 = kernel, initramfs })
	if said := m.plan.spec.Origin; said == nil || said.KernelSHA256 != kernel || said.InitramfsSHA256 != initramfs {
		m.correctSpec(said.of(kernel, initramfs))
	}
}

// correctSpec records what the Spec did not say of its files.
func (m *Machine) correctSpec(origin *Origin) {
	spec := m.plan.spec
	spec.Origin = origin
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	if err := m.record.spec(spec); err != nil {
		m.record.fails(records.SpecFile, err)
	}
}

func (m *Machine) writeResult(change func(*Result)) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed {
		return
	}
	change(&m.result)
	m.result.Warnings = m.console.Warnings()
	m.result.Stopped = m.filter.Stopped()
	m.record.result(m.result)
}

// MarkFailed says that the run has failed, for a reason that the machine does not know: that of a
// test for example. Its Result says so, unless it has a reason of the machine's own, and so a
// temporary record stays. It may be called after Close too, where the record is kept.
func (m *Machine) MarkFailed(reason error) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	if m.sealed && m.record.made && m.result.Error == "" {
		return // the record is gone
	}
	m.result.State = "failed"
	if m.result.Error == "" {
		m.result.Error = reason.Error()
	}
	m.record.result(m.result)
	if m.sealed {
		m.record.tidy()
	}
}

// Dial connects to a port of the guest that the Spec lists. A TCP connection is
// made to QEMU, which accepts it at once and resets it if the guest does not
// listen. Nobody reaches a guest that has crashed.
//
// The connection ends with the machine: when the guest has crashed, and when the
// machine has ended, every read and write fails at once, also one under way, with
// a *net.OpError that says why and wraps ErrGuest where the guest failed. What had
// arrived before is read first. Such an error is no timeout and not net.ErrClosed:
// the test has not closed the connection. Where the guest powered off or the
// machine was closed, the end of a TCP stream stays io.EOF.
//
// The connection has the methods of a *net.TCPConn or *net.UDPConn, CloseWrite,
// ReadFrom, ReadMsgUDP and SyscallConn for example, but not that type: assert an
// interface with what is needed.
func (m *Machine) Dial(ctx context.Context, network string, port int) (net.Conn, error) {
	select {
	case <-m.ended:
		if m.err != nil {
			return nil, fmt.Errorf("dial %s/%d: the machine has ended: %w", network, port, m.err)
		}
		return nil, fmt.Errorf("dial %s/%d: the machine has ended", network, port)
	default:
	}
	if err := m.crashed(); err != nil {
		m.awaitCollected(ctx)
		return nil, fmt.Errorf("dial %s/%d: %w", network, port, err)
	}
	for _, p := range m.forwards {
		if p.Network == network && p.Guest == port {
			conn, err := m.life.Dial(ctx, network, p.Host)
			if err != nil {
				return nil, fmt.Errorf("dial %s/%d: %w", network, port, err)
			}
			return conn, nil
		}
	}
	return nil, fmt.Errorf("dial %s/%d: not among the machine's ports %q: add it to Spec.Ports", network, port, m.plan.spec.Ports)
}

// Ports returns the guest's reachable ports and where on 127.0.0.1 they are.
func (m *Machine) Ports() (ports []Port) {
	for _, f := range m.forwards {
		ports = append(ports, Port(f))
	}
	return ports
}

// Console returns the guest's serial console.
func (m *Machine) Console() *console.Console { return m.console }

// Spec returns what the machine was booted from, with its defaults filled in and the acceleration that
// was chosen.
func (m *Machine) Spec() Spec {
	s := m.plan.spec
	s.Accel = m.plan.accel.accel
	return s
}

// Dir returns the record directory.
func (m *Machine) Dir() string { return m.record.dir }

// Result returns how far the machine has come.
func (m *Machine) Result() Result {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	r := m.result
	r.Stopped = m.filter.Stopped()
	r.Warnings = m.console.Warnings()
	return r
}

// keepsRecord says whether the record is there after Close: a temporary one is
// kept only of a run that has failed.
func (m *Machine) keepsRecord() bool { return !m.record.made || m.Result().Error != "" }

// Wait waits until the machine has ended, or its guest has crashed: then it may run
// on, and Close ends it. Its error is nil when Close or Shutdown was called, and when the guest has
// powered off, unless its program ended with another status than 0 or by a signal: then it is an
// *ExitError. That and every other failure of the guest wraps ErrGuest. Other errors tell of QEMU,
// or of a record that could not be written. See WaitExit for a program that is to end with another status.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.ended:
		return m.err
	default:
	}
	if ctx.Err() != nil { // a look whether it has ended
		return context.Cause(ctx)
	}
	ctx, cancel := m.unlessCrashed(ctx)
	defer cancel()
	select {
	case <-m.ended:
		return m.err
	case <-ctx.Done():
		if err := m.crashed(); err != nil {
			return err
		}
		return context.Cause(ctx)
	}
}

// Close ends the machine at once, as by pulling its plug, and waits until
// QEMU is gone. Only a guest that was seen to crash may first say the rest of it, a trace for
// example: until it is silent, and for at most 2 s of the machine's time after the crash was
// seen. Close may be called more than once. A temporary record is removed unless the run has
// failed.
//
// Its error says that the record is not whole, because a file of it could not be written. A
// machine that was ready went on all the same.
func (m *Machine) Close() error {
	m.closeWithin(context.Background())
	return m.record.failure()
}

// closeWithin is Close, which does not wait for the rest of a crash when ctx has ended.
func (m *Machine) closeWithin(ctx context.Context) {
	m.closing.Store(true)
	m.close.Do(func() {
		m.awaitCrash(ctx)
		m.proc.Kill()
		<-m.ended
		m.resuming.Wait()
		if t := m.template.Swap(nil); t != nil {
			t.close()
		}
		m.resultMu.Lock()
		m.sealed = true
		m.resultMu.Unlock()
		m.record.close(m.keepsRecord())
		if m.ram != nil {
			m.ram.Close()
		}
	})
}

// Within returns a context that ends after d of the machine's time: the time in which QEMU could
// run. The time in which QEMU waits for a processor of a busy host, or in which a signal has stopped
// it, does not count, but the context ends after ten times d on the wall clock at the latest. The
// time in which this process was suspended never counts. When the time is over, the cause of the
// context wraps context.DeadlineExceeded. The cancel function must be called, as always.
func (m *Machine) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return m.clock.WithTimeout(ctx, d)
}
