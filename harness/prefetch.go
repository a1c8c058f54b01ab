package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"guesthouse.example/harness/internal/qmp"
)

// prefetch restores a machine before anybody asks for it. It stands still, so that it
// takes no processor time and grows no older, no port leads to it, and its record is in
// memory: should this process die there is nothing but QEMU, which dies with it.
func (p *plan) prefetch(ctx context.Context, binary string, t *Template) (*Machine, error) {
	if t.Agent == nil {
		return nil, errNoAgent // who else gives it a clock and entropy when it goes on?
	}
	q := *p
	q.Dir, q.Ports, q.ports = "", nil, nil
	ram, state, err := t.open()
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	defer state.Close()
	rec := &record{start: time.Now()}
	m, err := q.spawn(binary, q.args(restoredRAM), rec, &rec.stderr, t, ram, state)
	if err != nil {
		return nil, err
	}
	if err = m.connect(ctx, t); err == nil {
		err = m.rehearse(ctx)
	}
	if err == nil {
		err = m.qmp.Execute(ctx, "stop", nil, nil)
	}
	if err != nil {
		m.discard()
		return nil, err
	}
	return m, nil
}

const (
	rehearsals     = 10                    // echoes: later ones gain nothing
	rehearsalAgain = 20 * time.Millisecond // after which one that may be lost is asked for again
)

// rehearse has QEMU translate what the guest runs for a datagram, and both ends learn
// each other's address: that is most of the time of a first echo. No service is asked,
// but the agent.
func (m *Machine) rehearse(ctx context.Context) error {
	ctx, cancel := m.Within(ctx, agentWithin)
	defer cancel()
	port, err := m.agentRehearse(ctx)
	if err != nil {
		return err
	}
	m.plan.ports = []Port{{Network: "udp", Guest: port}}
	if err := m.forward(ctx); err != nil {
		return err
	}
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.ports[0].Host))
	m.plan.ports, m.ports = nil, nil
	conn, err := net.Dial("udp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	for done := 0; done < rehearsals; {
		conn.Write([]byte{0})
		conn.SetReadDeadline(time.Now().Add(rehearsalAgain))
		n, err := conn.Read(make([]byte, 1))
		switch {
		case n == 1:
			done++
		case ctx.Err() != nil:
			return fmt.Errorf("rehearsal: no echo of the guest's agent: %w", context.Cause(ctx))
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("rehearsal: %w", err)
		}
	}
	var said string
	err = m.qmp.ExecuteAll(ctx, qmp.Human("hostfwd_remove net0 udp:"+host, &said))
	if err == nil {
		err = m.agentAnew(ctx) // its port closes
	}
	return err
}

// errUseless says that a prefetched machine was none that can be handed out.
var errUseless = errors.New("the prefetched machine is of no use")

// handOut makes a prefetched machine that of a plan with the same template, which
// somebody has just asked for: it gets a record, goes on, and before the first port is
// forwarded its entropy, clock and identity are new again. After an error it has ended.
func (m *Machine) handOut(ctx context.Context, p *plan, asked time.Time) (err error) {
	defer func() {
		if err != nil {
			m.discard()
		}
	}()
	select {
	case <-m.proc.done: // somebody has killed it
		return errUseless
	default:
	}
	if m.console.Crash() != "" {
		return errUseless
	}
	args := append([]string{m.binary}, m.plan.args(restoredRAM)...)
	if err := m.record.open(p.Dir, p.recorded(), args); err != nil {
		return fmt.Errorf("boot %s: %w", p.Target, err)
	}
	m.plan, m.asked, m.result = p, asked, p.result("prefetched", "")
	m.begin = m.clock.now()
	m.writeResult(func(*Result) {})
	if err := m.goOn(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("boot %s: %w", p.Target, context.Cause(ctx))
		}
		return fmt.Errorf("%w: %w", errUseless, err)
	}
	go m.hash()
	go m.watch()
	return nil
}

// goOn lets a machine run that stood still, and makes it itself again.
func (m *Machine) goOn(ctx context.Context) error {
	ctx, cancel := m.clock.until(ctx, m.begin, monitorWithin, fmt.Errorf("not within %v", monitorWithin))
	defer cancel()
	err := m.qmp.Execute(ctx, "cont", nil, nil)
	if err == nil {
		err = m.agentAnew(ctx)
	}
	if err == nil {
		err = m.forward(ctx)
	}
	return err
}

// discard ends a machine that was never handed out.
func (m *Machine) discard() {
	m.proc.kill()
	<-m.drained
	<-m.agent.ended
	if m.qmp != nil {
		<-m.qmp.Done()
	}
	m.record.close(false)
}
