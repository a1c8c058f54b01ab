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

// A program is the guest's program as the agent knows it. One that does not use package guest
// never says hello, and then it is told nothing. All that one says was written by a stranger: it
// reaches the harness only as what a program may say, and one that breaks the protocol or does not
// read what it asked for loses its line, and nobody else does.
type program struct {
	line  *wire.Conn
	near  socket
	far   *os.File      // the program's end
	calm  chan struct{} // it has answered Quiesce
	ended chan struct{} // closed when no more is read from it

	mu    sync.Mutex
	here  bool              // it has said hello, and its line is whole
	asked map[uint32]uint32 // the sequence numbers of what it was asked, and of the harness's request

	attends atomic.Bool // it wants to hear of Resume
}

func newProgram() (*program, error) {
	p := &program{calm: make(chan struct{}, 1), ended: make(chan struct{}), asked: make(map[uint32]uint32)}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		close(p.ended)
		return p, fmt.Errorf("agent: line to the program: %w", os.NewSyscallError("socketpair", err))
	}
	p.near, p.far = socket(fds[0]), os.NewFile(uintptr(fds[1]), "agent")
	p.line = wire.NewHarness(p.near)
	return p, nil
}

// ProgramEnd returns the program's end of its line, for it to inherit; nil if there is none. The
// caller closes it when the program has started.
func (a *Agent) ProgramEnd() *os.File { return a.program.far }

// listen reads what the program says.
func (a *Agent) listen() {
	p := a.program
	defer close(p.ended)
	for {
		m, err := p.line.Receive()
		if err == nil {
			err = a.hear(m)
		}
		if err == nil {
			continue
		}
		p.mu.Lock()
		p.here = false
		p.near.Close()
		p.mu.Unlock()
		if err != io.EOF {
			a.remark("the program's line to the agent: " + err.Error())
		}
		return
	}
}

func (a *Agent) hear(m wire.Message) error {
	p := a.program
	switch m.Type {
	case wire.Hello:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.here = true
	case wire.Event, wire.PowerOff:
		if len(m.Payload) > wire.MaxText {
			return fmt.Errorf("%s of %d bytes: the most is %d", m.Type, len(m.Payload), wire.MaxText)
		}
		a.say(wire.Message{Type: m.Type, Payload: m.Payload})
	case wire.Quiesce:
		select {
		case p.calm <- struct{}{}:
		default: // nobody waits for it any more
		}
	case wire.Attends:
		p.attends.Store(true)
	case wire.Statistics, wire.Rehearse, wire.Resume:
		p.mu.Lock()
		of, ok := p.asked[m.Answers]
		delete(p.asked, m.Answers)
		p.mu.Unlock()
		if ok {
			a.passOn(wire.Message{Type: m.Type, Answers: of, Payload: m.Payload})
		}
	default:
		return fmt.Errorf("%s is nothing that a program says", m.Type)
	}
	return nil
}

// ask passes a request of the harness on, and says whether the program was reached.
func (p *program) ask(m wire.Message) bool {
	p.mu.Lock() // the answer may be here before Send has returned
	defer p.mu.Unlock()
	if !p.here {
		return false
	}
	n, err := p.line.Send(wire.Message{Type: m.Type, Payload: m.Payload})
	if err != nil {
		p.here = false
		p.near.hangUp() // listen says so
		return false
	}
	p.asked[n] = m.Sequence
	return true
}

// quiesce has the program end its rehearsal. What it was asked before is not answered any more.
func (p *program) quiesce() {
	select {
	case <-p.calm: // that came too late the last time
	default:
	}
	if p.ask(wire.Message{Type: wire.Quiesce}) {
		select {
		case <-p.calm:
		case <-p.ended:
		case <-time.After(tellWithin): // it hangs
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.asked)
}

// drained waits until all that the program has said is passed on. A program that did not use its
// line may have left it to others.
func (p *program) drained() {
	p.mu.Lock()
	here := p.here
	p.mu.Unlock()
	if here {
		select {
		case <-p.ended:
		case <-time.After(tellWithin):
		}
	}
}
