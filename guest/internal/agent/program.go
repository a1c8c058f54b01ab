package agent

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// A program is the agent's view of the guest's program. A program that does not send a hello does not
// use package guest, and the agent sends it no requests. The agent does not trust the program. It
// passes on only the messages that a program may send, and closes the program's line if the program
// breaks the protocol or does not read its requests. That does not affect the harness's line.
type program struct {
	line *wire.Conn
	near socket
	far  *os.File      // the program's end
	calm chan struct{} // gets a token when the program answers Quiesce

	covered chan struct{} // gets a token when the program answers Coverage
	ended   chan struct{} // closed when listen has read the program's last message

	mu        sync.Mutex
	connected bool              // the program has said hello, and its line is intact
	asked     map[uint32]uint32 // pending requests: sequence number to the program → from the harness

	subscribed atomic.Bool // the program wants Resume
}

func newProgram() (*program, error) {
	p := &program{calm: make(chan struct{}, 1), covered: make(chan struct{}, 1), ended: make(chan struct{}), asked: make(map[uint32]uint32)}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		close(p.ended)
		return p, fmt.Errorf("agent: line to the program: %w", os.NewSyscallError("socketpair", err))
	}
	p.near, p.far = socket(fds[0]), os.NewFile(uintptr(fds[1]), "agent")
	p.line = wire.NewHarness(p.near)
	return p, nil
}

// ProgramEnd returns the end of the line that the program inherits, or nil if there is no line. The
// caller closes it when the program has started.
func (a *Agent) ProgramEnd() *os.File { return a.program.far }

// listen receives the program's messages.
func (a *Agent) listen() {
	p := a.program
	defer close(p.ended)
	for {
		m, err := p.line.Receive()
		if err == nil {
			err = a.receive(m)
		}
		if err == nil {
			continue
		}
		p.mu.Lock()
		p.connected = false
		p.near.Close()
		p.mu.Unlock()
		if err != io.EOF {
			a.remark("the program's line to the agent: " + err.Error())
		}
		return
	}
}

func (a *Agent) receive(m wire.Message) error {
	p := a.program
	switch m.Type {
	case wire.Hello:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.connected = true
	case wire.Event, wire.PowerOff:
		if len(m.Payload) > wire.MaxText {
			return fmt.Errorf("%s of %d bytes: the limit is %d", m.Type, len(m.Payload), wire.MaxText)
		}
		a.say(wire.Message{Type: m.Type, Payload: m.Payload})
	case wire.Quiesce:
		select {
		case p.calm <- struct{}{}:
		default: // quiesce no longer waits for an earlier answer
		}
	case wire.Coverage:
		select {
		case p.covered <- struct{}{}:
		default:
		}
	case wire.Subscribe:
		p.subscribed.Store(true)
	case wire.Statistics, wire.WarmUp, wire.Resume:
		p.mu.Lock()
		request, ok := p.asked[m.Answers]
		delete(p.asked, m.Answers)
		p.mu.Unlock()
		if ok {
			a.passOn(wire.Message{Type: m.Type, Answers: request, Payload: m.Payload})
		}
	default:
		return fmt.Errorf("unexpected message %s", m.Type)
	}
	return nil
}

// ask passes a request of the harness on to the program. It reports whether it has sent the request.
func (p *program) ask(m wire.Message) bool {
	p.mu.Lock() // the answer may be received before Send returns
	defer p.mu.Unlock()
	if !p.connected {
		return false
	}
	n, err := p.line.Send(wire.Message{Type: m.Type, Payload: m.Payload})
	if err != nil {
		p.connected = false
		p.near.hangUp() // listen reports it
		return false
	}
	p.asked[n] = m.Sequence
	return true
}

// quiesce makes the program end its warm-up echo. Answers to earlier requests are dropped from now on.
func (p *program) quiesce() {
	p.await(wire.Quiesce, p.calm, tellWithin)
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.asked)
}

// await passes a request on and waits for its answer, which is a token in a channel. It gives up if the program
// hangs.
func (p *program) await(request wire.Type, answered <-chan struct{}, within time.Duration) {
	select {
	case <-answered: // late, to an earlier request
	default:
	}
	if !p.ask(wire.Message{Type: request}) {
		return
	}
	select {
	case <-answered:
	case <-p.ended:
	case <-time.After(within):
	}
}

// drained waits until listen has passed on all messages of a program that has ended. It does not wait
// for a program that has sent no hello, because other processes may have inherited its line.
func (p *program) drained() {
	p.mu.Lock()
	connected := p.connected
	p.mu.Unlock()
	if connected {
		select {
		case <-p.ended:
		case <-time.After(tellWithin):
		}
	}
}
