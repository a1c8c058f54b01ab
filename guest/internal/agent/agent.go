// Package agent is init's end of the line to the harness. It makes a machine that was saved and
// restored one of its own, tells how the guest's program ended, and passes on what the harness
// and a program of package guest say to each other. It works before, without and after any
// program.
package agent

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// An Agent talks to the harness and to the guest's program. In a machine without the
// harness's port it listens to the program alone.
type Agent struct {
	harness  *wire.Conn // nil in a machine without the port
	port     *port
	random   int             // descriptor of /dev/urandom
	identity identityFile    // empty where it could not be made
	powerOff func(told bool) // what the harness may ask for
	asked    atomic.Bool     // it has

	mu    sync.Mutex // held while a message is sent to the harness
	loud  *sync.Cond // quiet has become false
	quiet bool       // from quiesce to restored

	program  *program
	programs *group   // all but init; nil in a kernel without control groups
	freezer  freezer  // of all these
	remarks  []string // for when the harness hears them
	children *Children
	commands commands

	rehearsal Rehearsal // where the program has none of its own; serve's own
	prepared  bool      // by Prepare, also before the machine was saved; likewise
	network   Announcer // prepared when the machine becomes quiet; likewise
}

// Open finds the harness's port and makes the line to the program. The agent works, as far as it
// can, also after an error.
func Open(children *Children) (*Agent, error) {
	a := &Agent{children: children}
	a.commands.running = make(map[uint32]*command)
	a.loud = sync.NewCond(&a.mu)
	var err error
	if a.program, err = newProgram(); err != nil {
		return a, err
	}
	if a.programs, err = newGroup("guest", nil); err != nil {
		a.remarks = append(a.remarks, err.Error()) // it works without them
	}
	if a.freezer, err = newFreezer(a.programs); err != nil {
		a.remarks = append(a.remarks, "programs are stopped by SIGSTOP while the machine is saved: "+err.Error())
	}
	p, err := openPort()
	if p == nil {
		return a, err
	}
	a.random, err = unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		p.Close()
		return a, fmt.Errorf("agent: %w", &os.PathError{Op: "open", Path: "/dev/urandom", Err: err})
	}
	a.port, a.harness = p, wire.NewGuest(p)
	a.identity, err = newIdentityFile()
	return a, err
}

// Hold has the guest's program start where the agent can kill it with all that it starts.
func (a *Agent) Hold(attr *unix.SysProcAttr) { a.programs.hold(attr) }

// Kill ends the guest's program, the leader of a process group, with all that it has started, and
// the harness's commands.
func (a *Agent) Kill(pid int) { a.programs.kill(pid) }

// Here says whether the machine has the harness's port.
func (a *Agent) Here() bool { return a.harness != nil }

// Start says hello and answers the harness until the machine ends. When the harness
// asks for it, powerOff is called, on a goroutine of its own, and told says that the program
// knows.
func (a *Agent) Start(powerOff func(told bool)) {
	a.powerOff = powerOff
	if a.program.far != nil {
		go a.listen()
	}
	if a.Here() {
		a.mu.Lock() // until hello, which is first, is said
		go a.serve()
	}
}

// serve reads what the harness says. It says hello itself, because nobody may be at
// the other end, and then that waits.
func (a *Agent) serve() {
	defer a.port.Close()
	id := bootID()
	_, err := a.harness.Send(wire.Message{Type: wire.Hello, Payload: id[:]})
	a.mu.Unlock()
	if err != nil {
		return
	}
	for _, text := range a.remarks {
		a.remark(text)
	}
	for {
		m, err := a.harness.Receive()
		if err == nil {
			err = a.answer(m)
		}
		if err != nil {
			a.say(wire.Message{Type: wire.Failed, Payload: []byte(err.Error())}) // there is nobody else to tell
			return
		}
	}
}

func (a *Agent) answer(m wire.Message) error {
	switch m.Type {
	case wire.PowerOff:
		a.asked.Store(true)
		go a.powerOff(a.program.ask(m)) // the answer is that the program ends
		return nil
	case wire.Statistics:
		if a.program.ask(m) {
			return nil // its answer is the agent's
		}
		return a.reply(m, Statistics().Encode())
	case wire.Rehearse:
		if !a.prepared {
			Prepare()
			a.prepared = true
		}
		if a.program.ask(m) {
			return nil
		}
		return a.reply(m, wire.EncodePort(a.rehearsal.Begin()))
	case wire.Execute:
		return a.execute(m)
	case wire.Kill:
		return a.killCommand(m)
	case wire.Quiesce:
		a.rehearsal.End()
		a.program.quiesce()
		if err := a.freezer.freeze(); err != nil {
			a.remark("stop all programs: " + err.Error())
		}
		if err := a.network.Prepare(); err != nil {
			a.remark(err.Error()) // the network asks when it has to
		}
		return a.reply(m, nil)
	case wire.Restored:
		r, err := wire.DecodeRestore(m.Payload)
		if err == nil {
			err = a.restore(r)
		}
		if err != nil {
			return err
		}
		if err := a.network.Announce(); err != nil {
			defer a.remark(err.Error())
		}
		err = a.reply(m, wire.Renewed{Clock: time.Now(), Attends: a.program.attends.Load()}.Encode())
		if failed := a.freezer.thaw(); failed != nil {
			return fmt.Errorf("let all programs go on: %w", failed)
		}
		return err
	case wire.Resume:
		if a.program.ask(m) {
			return nil
		}
		return a.reply(m, nil)
	default:
		return fmt.Errorf("%s is nothing that an agent is asked", m.Type)
	}
}

// passOn sends the program's answer to a request. One that comes when the agent is quiet is too
// late.
func (a *Agent) passOn(m wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.quiet {
		a.harness.Send(m)
	}
}

// reply answers a request. The agent is quiet from its answer to Quiesce to that to Restored.
func (a *Agent) reply(m wire.Message, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quiet = m.Type == wire.Quiesce
	if !a.quiet {
		a.loud.Broadcast()
	}
	_, err := a.harness.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload})
	return err
}

// say sends what was not asked for. While the agent is quiet that waits: the machine that
// goes on says it, and so does each one that is restored.
func (a *Agent) say(m wire.Message) {
	if !a.Here() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.quiet {
		a.loud.Wait()
	}
	a.harness.Send(m) // a broken line is serve's to notice
}

// tellWithin bounds how long the agent waits for a harness, or the last words of a program.
const tellWithin = time.Second

// tell is say for those who must not wait for a harness that does not listen.
func (a *Agent) tell(m wire.Message) {
	told := make(chan struct{})
	go func() {
		a.say(m)
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(tellWithin):
	}
}

// PowerOff tells that the program is about to end in order, and why.
func (a *Agent) PowerOff(why string) {
	a.tell(wire.Message{Type: wire.PowerOff, Payload: wireText(why)})
}

// remark tells what belongs into the record.
func (a *Agent) remark(text string) {
	a.tell(wire.Message{Type: wire.Remark, Payload: wireText(text)})
}

// Ended tells how the program ended, after all that the program itself had to tell.
func (a *Agent) Ended(exit wire.Exit) {
	a.program.drained()
	exit.Asked = a.asked.Load()
	a.tell(wire.Message{Type: wire.Ended, Payload: exit.Encode()})
}

// wireText returns as much of a text as a message takes.
func wireText(text string) []byte { return []byte(text[:min(len(text), wire.MaxText)]) }
