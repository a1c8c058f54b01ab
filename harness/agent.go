package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// errNoAgent says that the guest has none: its kernel has no driver for the port, or its init
// is not that of package images.
var errNoAgent = errors.New("the guest has no agent: it has not opened the port " + wire.PortName)

// errLineEnded says that QEMU has closed its end of the line, as it does when it ends.
var errLineEnded = errors.New("the line has ended")

// agentWithin bounds an answer of the guest's agent, in the machine's time.
const agentWithin = 10 * time.Second

const (
	clockWithin = 50 * time.Millisecond // a guest's clock is late by that much at most,
	clockTries  = 4                     // where one of so many requests is as fast
	clockStep   = time.Second           // of a clock that somebody sets or slews meanwhile
)

// An agent is the harness's end of the line to the guest's agent, which may be
// silent or not there at all.
type agent struct {
	conn net.Conn
	line *agentLine
	wire *wire.Conn
	log  io.Writer
	turn chan struct{} // holds a token while somebody asks, or the guest is quiet

	hello chan struct{} // closed when the guest has said it
	ended chan struct{} // closed when no more is read
	err   error         // why; set before ended is closed

	greets sync.Once

	mu     sync.Mutex // of all below and of log
	waits  *question
	events eventLog      // what the guest has told
	told   chan struct{} // closed when there is another
	off    string        // why the guest powers off
	exit   *wire.Exit    // how its program ended

	commands map[uint32]*running // by the number of the request
}

// A question waits for its answer.
type question struct {
	of       wire.Type
	sequence uint32
	answer   chan wire.Message
}

// savedAgent is what a template knows of the conversation with its guest, which
// is quiet.
type savedAgent struct {
	Epoch  uint32   `json:"epoch"`
	Events []string `json:"events,omitempty"`
	// Dropped are the events that were told before Events and are not kept.
	Dropped int `json:"events_dropped,omitempty"`
}

func newAgent(conn net.Conn, log io.Writer) *agent {
	line := &agentLine{Conn: conn, turn: make(chan struct{}, 1)}
	return &agent{conn: conn, line: line, wire: wire.NewHarness(line), log: log, turn: make(chan struct{}, 1),
		hello: make(chan struct{}), ended: make(chan struct{}), told: make(chan struct{})}
}

// listen reads until the line ends or the guest breaks the protocol. Then it
// closes the line, so that the guest does not wait for a reader.
func (a *agent) listen() {
	defer close(a.ended)
	defer a.conn.Close()
	for {
		m, err := a.wire.Receive()
		if err == nil {
			a.note("guest", m)
			err = a.take(m)
		}
		if err != nil {
			if err == io.EOF {
				err = errLineEnded
			}
			a.err = fmt.Errorf("the guest's agent: %w", err)
			a.mu.Lock()
			fmt.Fprintf(a.log, "end: %v\n", err)
			a.mu.Unlock()
			return
		}
	}
}

// take keeps what the guest tells, and hands an answer to whoever waits for it. One that
// comes too late is for nobody.
func (a *agent) take(m wire.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch m.Type {
	case wire.Hello:
		a.greet()
	case wire.Failed:
		return fmt.Errorf("it says: %s", printable.Text(string(m.Payload)))
	case wire.Event:
		a.events.add(string(m.Payload))
		close(a.told)
		a.told = make(chan struct{})
	case wire.PowerOff:
		a.off = string(m.Payload)
	case wire.Ended:
		exit, err := wire.DecodeExit(m.Payload)
		if err != nil {
			return err
		}
		a.exit = &exit
	case wire.Output, wire.Exited:
		if r := a.commands[m.Answers]; r != nil {
			return r.take(m)
		}
	}
	if q := a.waits; q != nil && q.of == m.Type && q.sequence == m.Answers {
		q.answer <- m
		a.waits = nil
	}
	return nil
}

// greet notes that the guest has an agent.
func (a *agent) greet() { a.greets.Do(func() { close(a.hello) }) }

// note writes a line into the record; both directions may do so at once.
func (a *agent) note(who string, m wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch m.Type {
	case wire.Event, wire.PowerOff, wire.Failed, wire.Remark:
		fmt.Fprintf(a.log, "%s: %s: %q\n", who, m.Type, m.Payload)
	case wire.Execute:
		args, _ := wire.DecodeArgs(m.Payload)
		fmt.Fprintf(a.log, "%s: %s: %q\n", who, m.Type, args)
	case wire.Ended, wire.Exited:
		exit, _ := wire.DecodeExit(m.Payload) // take says what is wrong
		fmt.Fprintf(a.log, "%s: %s: %v %q\n", who, m.Type, exit, exit.Why)
	default:
		fmt.Fprintf(a.log, "%s: %s, %d bytes, epoch %d\n", who, m.Type, len(m.Payload), a.wire.Epoch())
	}
}

// lock waits for the turn to ask.
func (a *agent) lock(ctx context.Context) error { return take(ctx, a.turn) }

func (a *agent) unlock() { <-a.turn }

// ask sends a request and waits for the answer. The caller has the turn.
func (a *agent) ask(ctx context.Context, t wire.Type, payload []byte) ([]byte, error) {
	q, err := a.pose(ctx, t, payload)
	if err != nil {
		return nil, err
	}
	answer, err := a.await(ctx, q)
	if err != nil {
		a.forget()
	}
	return answer, err
}

// pose sends a request, for whose answer somebody is to wait.
func (a *agent) pose(ctx context.Context, t wire.Type, payload []byte) (*question, error) {
	q := &question{of: t, answer: make(chan wire.Message, 1)}
	err := a.send(ctx, wire.Message{Type: t, Payload: payload}, q)
	select {
	case <-a.ended:
		return nil, a.err
	default:
	}
	if err != nil {
		a.forget()
		return nil, fmt.Errorf("the guest's agent is not reached: %w", err)
	}
	return q, nil
}

// await waits for the answer.
func (a *agent) await(ctx context.Context, q *question) ([]byte, error) {
	select {
	case m := <-q.answer:
		return m.Payload, nil
	case <-a.ended:
		return nil, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer of the guest's agent: %w", q.of, context.Cause(ctx))
	}
}

// forget leaves an answer that is still to come to nobody.
func (a *agent) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waits = nil
}

// send sends a request, whose answer goes to the question, if there is one. A guest that
// does not read holds it up until ctx ends. The caller has the turn.
func (a *agent) send(ctx context.Context, m wire.Message, q *question) error {
	a.note("harness", m)
	if q != nil {
		a.mu.Lock() // the answer may be here before Send has returned
		q.sequence = a.wire.Next()
		a.waits = q
		a.mu.Unlock()
	}
	a.line.ctx = ctx
	_, err := a.wire.Send(m)
	return err
}

// agentHere waits for the hello of the guest's agent. Where nobody has opened the
// port it fails at once, with errNoAgent.
func (m *Machine) agentHere(ctx context.Context) error {
	select {
	case <-m.agent.hello:
		return nil
	default:
	}
	var devices []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	if err := m.qmp.Execute(ctx, "query-chardev", nil, &devices); err != nil {
		return err
	}
	for _, d := range devices {
		if d.Label == qemu.AgentDevice && d.Open {
			select {
			case <-m.agent.hello:
				return nil
			case <-m.agent.ended:
				return m.agent.err
			case <-ctx.Done():
				return fmt.Errorf("hello of the guest's agent: %w", context.Cause(ctx))
			}
		}
	}
	return errNoAgent
}

// agentQuiesce makes the guest's agent say nothing more, so that the machine can
// be saved without a byte under way. Nobody else asks it until the machine is resumed.
func (m *Machine) agentQuiesce(ctx context.Context, r *resumption) (*savedAgent, error) {
	ctx, cancel := m.Within(ctx, agentWithin)
	defer cancel()
	if err := m.agentHere(ctx); err != nil {
		return nil, err
	}
	if err := m.agent.lock(ctx); err != nil {
		return nil, err
	}
	err := m.agent.noCommands()
	if err != nil {
		m.agent.unlock()
		return nil, err
	}
	if r.quiesce, err = m.agent.pose(ctx, wire.Quiesce, nil); err != nil {
		m.agent.unlock()
		return nil, err
	}
	if _, err := m.agent.await(ctx, r.quiesce); err != nil {
		return nil, err
	}
	r.quiet = true
	m.agent.mu.Lock()
	defer m.agent.mu.Unlock()
	events := &m.agent.events
	return &savedAgent{Epoch: m.agent.wire.Epoch(), Events: slices.Clone(events.texts), Dropped: events.base}, nil
}

// agentRestored begins a conversation with the agent of a guest that was saved,
// here or in another machine, and waits until the guest has new entropy, the
// host's clock and a new boot identity. In a machine that is somebody's the program has then done
// what guest.OnRestore was given.
func (m *Machine) agentRestored(ctx context.Context, epoch uint32) error {
	ctx, cancel := m.Within(ctx, agentWithin)
	defer cancel()
	late, err := m.agent.restored(ctx, epoch, !m.waits)
	m.clockIsLate(late)
	return err
}

func (m *Machine) clockIsLate(by time.Duration) {
	m.resultMu.Lock()
	defer m.resultMu.Unlock()
	m.result.ClockLate = by.Seconds() // written with what is next
}

// restored is agentRestored, and returns how late the guest's clock may be. It gives back the
// turn that quiesce took; in a machine that was restored nobody has it.
func (a *agent) restored(ctx context.Context, epoch uint32, resume bool) (late time.Duration, err error) {
	select {
	case a.turn <- struct{}{}:
	default:
	}
	defer a.unlock()
	a.greet()
	a.wire.Open(epoch)
	late, attends, err := a.anew(ctx)
	if err == nil && resume && attends {
		_, err = a.ask(ctx, wire.Resume, nil)
	}
	return late, err
}

// agentRehearse has the guest's agent echo datagrams until it is made quiet or given a new life,
// and returns the UDP port; 0 of a guest without a network.
func (m *Machine) agentRehearse(ctx context.Context) (int, error) {
	if err := m.agent.lock(ctx); err != nil {
		return 0, err
	}
	defer m.agent.unlock()
	answer, err := m.agent.ask(ctx, wire.Rehearse, nil)
	if err != nil {
		return 0, err
	}
	port, err := wire.DecodePort(answer)
	if err != nil {
		return 0, fmt.Errorf("%w: its agent: %w", ErrGuest, err)
	}
	return port, nil
}

// anew gives the guest new entropy, the host's clock and a new boot identity, and returns
// how late that may be, and whether its program wants to hear of Resume. The caller has the turn.
func (a *agent) anew(ctx context.Context) (late time.Duration, attends bool, err error) {
	var boot wire.BootID
	rand.Read(boot[:]) // it does not fail
	// The guest's clock is late by the way there: once more, if that was long.
	for range clockTries {
		if late, attends, err = a.renew(ctx, boot); err != nil || late <= clockWithin {
			break
		}
	}
	return late, attends, err
}

// renew asks once and returns how long that took.
func (a *agent) renew(ctx context.Context, boot wire.BootID) (took time.Duration, attends bool, err error) {
	r := wire.Restore{Boot: boot, Entropy: make([]byte, 2*wire.MinEntropy)}
	rand.Read(r.Entropy)
	r.Now = time.Now()
	answer, err := a.ask(ctx, wire.Restored, r.Encode())
	if err != nil {
		return 0, false, err
	}
	took = time.Since(r.Now)
	guest, err := wire.DecodeRenewed(answer)
	if err != nil {
		return 0, false, fmt.Errorf("%w: its agent: %w", ErrGuest, err)
	}
	if ran := guest.Clock.Sub(r.Now); ran < 0 || ran > took+clockStep {
		return 0, false, fmt.Errorf("%w: its clock was set to %v and says %v after %v", ErrGuest, r.Now.UTC(), guest.Clock.UTC(), took)
	}
	return took, guest.Attends, nil
}

// Stats is what the guest tells of itself.
type Stats struct {
	BootID                  string        // guest.BootID: of this boot or restoration
	Uptime                  time.Duration // since the kernel's start, without the time it lay saved
	MemoryTotal, MemoryFree uint64        // bytes; free is MemAvailable in /proc/meminfo
	Services                []ServiceStats
}

// ServiceStats tells of a socket service, as guest/socketservice counts.
type ServiceStats struct {
	Name          string
	Sockets       int
	Calls, Errors uint64
	Time, MaxTime time.Duration // in its handler, together and in the longest call
}

// Stats asks the guest's agent, which answers within 10 s of the machine's time. It
// fails at once where the guest has no agent or has crashed, and waits while Save runs.
func (m *Machine) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := m.unlessCrashed(ctx)
	defer cancel()
	ctx, cancel = m.Within(ctx, agentWithin)
	defer cancel()
	err := m.agentHere(ctx)
	var s Stats
	if err == nil {
		s, err = m.agent.stats(ctx)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("statistics of %s: %w", m.plan.spec.Target, m.orCrash(ctx, err))
	}
	return s, nil
}

func (a *agent) stats(ctx context.Context) (Stats, error) {
	if err := a.lock(ctx); err != nil {
		return Stats{}, err
	}
	defer a.unlock()
	answer, err := a.ask(ctx, wire.Statistics, nil)
	if err != nil {
		return Stats{}, err
	}
	w, err := wire.DecodeStats(answer)
	if err != nil {
		return Stats{}, fmt.Errorf("%w: its agent: %w", ErrGuest, err)
	}
	s := Stats{BootID: w.Boot.String(), Uptime: w.Uptime, MemoryTotal: w.MemoryTotal, MemoryFree: w.MemoryAvail}
	for _, svc := range w.Services {
		s.Services = append(s.Services, ServiceStats{Name: svc.Name, Sockets: int(svc.Sockets),
			Calls: svc.Calls, Errors: svc.Errors, Time: svc.Time, MaxTime: svc.MaxTime})
	}
	return s, nil
}
