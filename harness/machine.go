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
	"guesthouse.example/harness/internal/relay"
	"guesthouse.example/harness/internal/vm"
)

// A Machine is a running emulated machine. Its methods may be called from any
// goroutine.
type Machine struct {
	vm       *vm.VM
	plan     *plan
	forwards []qemu.Forward     // with the host's ports
	began    time.Time          // the seconds of the result count from this time
	begin    machinetime.Moment // the deadlines of WaitReady count from this moment

	template atomic.Pointer[pendingTemplate] // the template that WaitReady saves; nil if it saves none
	delivery *delivery                       // of the program; nil if the initramfs or the template has it

	attached attachments    // the places of the cards on networks; nil on QEMU's user network
	captured chan struct{}  // closed when the capture of QEMU's user network is complete; nil without one
	captures []*captureFile // the frames of these cards
	relays   []*relay.Relay // forward ports to the guest

	hostFiles *hostFiles // what the guest has of the host's files

	covered  *coverage     // nil without Spec.CoverDir
	closing  atomic.Bool   // Close has been called
	hashed   chan struct{} // closed when the record has the hashes of the machine's files
	ended    chan struct{} // see Done
	err      error         // how the machine ended; set before ended is closed
	exit     *Exit         // how the guest's program ended, if that is known; set before ended is closed
	typedOff atomic.Bool   // Shutdown has asked the guest to power off without its agent
	close    sync.Once
	life     *guestconn.Life // bounds the connections of Dial
	shares   mountedShares   // the directories that the guest has mounted

	resultMu sync.Mutex
	result   Result
	sealed   bool // Close has finished the record
}

// watch waits for the end of QEMU and records how the machine ended.
func (m *Machine) watch() {
	go m.endLife()
	m.vm.WaitEnd()
	err := m.end()
	m.leaveNetworks(m.whyEnded(err))
	m.fail(err, true)
	close(m.ended)
}

// endLife waits until the guest has crashed and printed the rest of its crash, or until the machine has
// ended. It then ends the connections.
func (m *Machine) endLife() {
	select {
	case <-m.vm.CrashCollected():
		if err := m.vm.Crashed(); err != nil {
			m.life.End(err)
			m.attached.close(err)
			return
		}
	case <-m.ended:
	}
	<-m.ended
	m.life.End(m.whyEnded(m.err))
}

// whyEnded returns why the connections of a machine that has ended with an error, or with nil, end.
func (m *Machine) whyEnded(err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("the machine has ended: %w", err)
	case m.closing.Load():
		return guestconn.ErrClosed
	}
	return guestconn.ErrPoweredOff
}

// end returns why the machine has ended, or nil after Close and after a power-off without a failure of
// the guest's program. QEMU must have ended.
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
	case strings.Contains(reason, `"guest-reset"`) && m.vm.Console.Len() == 0:
		machine, cpu := m.plan.qemu.Model()
		return fmt.Errorf("%w: it restarted before it printed anything: the image may be for another board, or need another processor than -cpu %s, another machine than -machine %s, or more than %d MiB of memory",
			ErrGuest, cpu, machine, m.plan.spec.Memory)
	case m.plan.board != nil && strings.Contains(reason, `"guest-reset"`):
		return fmt.Errorf("%w: it restarted", ErrGuest)
	case strings.Contains(reason, `"guest-reset"`) && m.plan.spec.Memory < debianMemory:
		return fmt.Errorf("%w: it restarted instead of powering off; it may need more than %d MiB of memory", ErrGuest, m.plan.spec.Memory)
	case strings.Contains(reason, `"guest-reset"`):
		return fmt.Errorf("%w: it restarted instead of powering off", ErrGuest)
	case strings.Contains(reason, `"guest-panic"`):
		return fmt.Errorf("%w: it panicked", ErrGuest)
	}
	if exit := m.guestStatus(); exit != nil {
		m.exit = exit
		return poweredOff(exit, asked)
	}
	return qemu.ExplainEnd(m.vm.Process.Describe(), m.vm.Record.StderrText())
}

// Dial connects to a port of the guest. A machine with Spec.Net is reached at its address on the first
// network, on any port, and the network may also be "tcp4", "tcp6", "udp4" or "udp6".
//
// Without Spec.Net, Dial reaches the ports that the Spec lists. The network is "tcp" or "udp". QEMU accepts a
// TCP connection at once, and resets it if the guest does not listen. Dial fails if the guest has crashed.
//
// The connection ends with the machine. When the guest has crashed or the machine has ended, reads return
// the data that arrived before, and then all reads and writes fail, even those under way. The error is a
// *net.OpError that says why, and wraps ErrGuest if the guest failed. It is neither a timeout nor
// net.ErrClosed. If the guest powered off or the machine was closed, a TCP stream ends with io.EOF.
//
// The connection has the methods of a *net.TCPConn or *net.UDPConn, such as CloseWrite, ReadFrom, ReadMsgUDP
// and SyscallConn, but not that type: assert an interface with the methods that you need.
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
	if len(m.attached) > 0 {
		conn, err := m.dialNetwork(ctx, network, port)
		if err != nil {
			return nil, fmt.Errorf("dial %s/%d: %w", network, port, err)
		}
		return conn, nil
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

// A Port is a guest's port and the host's port on 127.0.0.1 that is forwarded to it.
type Port struct {
	Network string // "udp" or "tcp"
	Guest   int
	Host    int
}

// Ports returns the guest's ports that the Spec lists, with the host's ports that lead to them.
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

// Within returns a context that ends after d of the machine's time, which is the time in which QEMU can
// run. The machine's time stands still while QEMU waits for a processor of a busy host, and while a
// signal has stopped QEMU. The context ends at the latest after ten times d on the wall clock. The time
// in which this process was suspended counts on neither clock. When d is over, the cause of the context
// wraps context.DeadlineExceeded. The caller must call the cancel function.
func (m *Machine) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return m.vm.Within(ctx, d)
}

// Dir returns the record directory.
func (m *Machine) Dir() string { return m.vm.Record.Dir() }

// Done returns a channel that is closed when the machine has ended: QEMU has exited, and the record has
// everything that QEMU sent. Wait then returns at once.
func (m *Machine) Done() <-chan struct{} { return m.ended }

// Wait waits until the machine has ended or its guest has crashed. A machine whose guest has crashed may
// still run; Close ends it.
//
// Wait returns nil if Close or Shutdown ended the machine, and if the guest powered off and its
// program exited with status 0. If the program exited with another status, or a signal ended it, the error
// is an *ExitError. That error and every other failure of the guest wrap ErrGuest. Other errors are
// those of QEMU, and of a record that could not be written. WaitExit expects another status than 0.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.ended:
		return m.err
	default:
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

// Close ends the machine at once, as if its power were cut, and waits until QEMU has exited. If the guest
// has crashed, Close first waits for the rest of the crash on the console, such as a trace: until the
// guest is silent, but for at most 2 s of the machine's time. Close removes a temporary record unless the
// run has failed. It may be called more than once.
//
// Close returns an error if a file of the record could not be written, so that the record is incomplete.
// Such a failure does not end a machine that is ready.
func (m *Machine) Close() error {
	m.closeWithin(context.Background())
	return m.vm.Record.Failure()
}

// closeWithin is Close, but it waits for the rest of a crash only until ctx ends.
func (m *Machine) closeWithin(ctx context.Context) {
	m.close.Do(func() {
		m.collectCoverage(ctx)
		m.closing.Store(true)
		m.vm.AwaitCrash(ctx)
		m.vm.Process.Kill()
		<-m.ended
		if m.delivery != nil {
			<-m.delivery.done
		}
		m.noteCoverage()
		if t := m.template.Swap(nil); t != nil {
			t.Close()
		}
		m.shares.close()
		m.resultMu.Lock()
		m.sealed = true
		m.resultMu.Unlock()
		m.vm.Close()
		m.vm.Record.Close(m.keepsRecord())
	})
}
