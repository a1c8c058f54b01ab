package harness

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/vm"
)

// A Machine is a running emulated machine. Its methods may be called from any
// goroutine.
type Machine struct {
	vm       *vm.VM
	plan     *plan
	forwards []qemu.Forward     // with the host's ports
	began    time.Time          // the seconds of the result count from it
	begin    machinetime.Moment // the deadlines of WaitReady count from it

	template atomic.Pointer[making] // the template that WaitReady saves

	closing  atomic.Bool   // Close has been called
	hashed   chan struct{} // closed when the record has the hashes of the kernel and the initramfs
	ended    chan struct{} // closed when QEMU is gone and the record has everything that it sent
	err      error         // how the machine ended; set before ended is closed
	exit     *Exit         // how the guest's program ended, if that is known; set before ended is closed
	typedOff atomic.Bool   // Shutdown has asked a guest without an agent
	close    sync.Once
	life     *guestconn.Life // of connections; ends with the crash of the guest or the end of the machine

	resultMu sync.Mutex
	result   Result
	sealed   bool // Close has finished the record
}

// watch waits for the end of QEMU and says how it ended.
func (m *Machine) watch() {
	go m.live()
	m.vm.WaitEnd()
	m.fail(m.end(), true)
	close(m.ended)
}

// live ends the machine's life, and with it the connections, when the guest has crashed and printed the
// rest of its crash, or when the machine has ended.
func (m *Machine) live() {
	select {
	case <-m.vm.CrashCollected():
		if err := m.vm.Crashed(); err != nil {
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

// end returns why a machine that is gone has ended; nil is a power-off.
func (m *Machine) end() error {
	exit, asked := m.programEnd()
	m.exit = exit
	if err := m.vm.Crashed(); err != nil {
		return err
	}
	reason := m.vm.ShutdownReason()
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
	return m.vm.Process.Describe()
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
	if err := m.vm.Crashed(); err != nil {
		m.vm.AwaitCrashText(ctx)
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
func (m *Machine) Console() *console.Console { return m.vm.Console }

// Spec returns what the machine was booted from, with its defaults filled in and the acceleration that
// was chosen.
func (m *Machine) Spec() Spec {
	s := m.plan.spec
	s.Accel = m.plan.accel.accel
	return s
}

// Within returns a context that ends after d of the machine's time: the time in which QEMU could
// run. The time in which QEMU waits for a processor of a busy host, or in which a signal has stopped
// it, does not count, but the context ends after ten times d on the wall clock at the latest. The
// time in which this process was suspended never counts. When the time is over, the cause of the
// context wraps context.DeadlineExceeded. The cancel function must be called, as always.
func (m *Machine) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return m.vm.Within(ctx, d)
}

// Dir returns the record directory.
func (m *Machine) Dir() string { return m.vm.Record.Dir() }

// Done returns a channel that is closed when the machine has ended: QEMU is gone, and the record has
// everything that it sent. Wait then returns at once and says how it ended.
func (m *Machine) Done() <-chan struct{} { return m.ended }

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
	ctx, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	select {
	case <-m.ended:
		return m.err
	case <-ctx.Done():
		if err := m.vm.Crashed(); err != nil {
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
	return m.vm.Record.Failure()
}

// closeWithin is Close, which does not wait for the rest of a crash when ctx has ended.
func (m *Machine) closeWithin(ctx context.Context) {
	m.closing.Store(true)
	m.close.Do(func() {
		m.vm.AwaitCrash(ctx)
		m.vm.Process.Kill()
		<-m.ended
		if t := m.template.Swap(nil); t != nil {
			t.Close()
		}
		m.resultMu.Lock()
		m.sealed = true
		m.resultMu.Unlock()
		m.vm.Close()
		m.vm.Record.Close(m.keepsRecord())
	})
}
