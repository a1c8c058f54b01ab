// Package agent is the guest's end of the line to the harness. It runs in init. It runs the
// harness's commands, copies files to and from the harness, makes init start the program of a
// platform, reseeds the guest after a restore, reports how the guest's program ended, and relays
// messages between the harness and a program that uses package guest. All but the relaying works with
// every program, and without one.
//
// Package guest uses the parts that a program and init have in common: statistics, the boot
// identity and the warm-up. Init announces the machine's addresses with an Announcer.
package agent

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/share"
	"guesthouse.example/internal/wire"
)

// An Agent talks to the harness and to the guest's program. In a machine without the harness's port
// it listens to the program alone.
type Agent struct {
	harness  *wire.Conn // nil in a machine without the port
	port     *port
	random   int          // descriptor of /dev/urandom
	identity identityFile // empty if it could not be made
	machine  Machine
	asked    atomic.Bool // the harness has asked for the power-off

	mu    sync.Mutex // held while a message is sent to the harness
	loud  *sync.Cond // signals that quiet has become false
	quiet bool       // from the answer to Quiesce to the answer to Restored
	talk  int        // counts the conversations

	program  *program
	programs *group   // holds all processes but init; nil in a kernel without control groups
	freezer  freezer  // of programs
	remarks  []string // to send after the hello
	children *Children
	commands commands
	bulk     bulk
	covering sync.Mutex // held while coverage data is sent

	// These belong to serve.
	echo    WarmUpEcho // for a program that does not use package guest
	warm    bool       // WarmUpRuntime was called
	network Announcer  // prepared when the machine becomes quiet
}

// Open opens the harness's port and makes the line to the program. If it returns an error, the agent
// still works as far as it can.
func Open(children *Children) (*Agent, error) {
	a := &Agent{children: children}
	a.commands.all = make(map[uint32]*command)
	a.loud = sync.NewCond(&a.mu)
	var err error
	if a.program, err = newProgram(); err != nil {
		return a, err
	}
	if a.programs, err = newGroup("guest", nil); err != nil {
		a.remarks = append(a.remarks, err.Error()) // the agent works without control groups
	}
	if a.freezer, err = newFreezer(a.programs); err != nil {
		a.remarks = append(a.remarks, "programs are stopped by SIGSTOP while the machine is saved: "+err.Error())
	}
	p, err := openPort()
	if p == nil {
		return a, err
	}
	if err := makeCoverDir(); err != nil {
		a.remarks = append(a.remarks, "coverage: "+err.Error())
	}
	if failed := a.makeSpare(); failed != nil {
		a.remarks = append(a.remarks, failed.Error())
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

// Hold makes the guest's program start in a control group, so that Kill reaches all its processes.
func (a *Agent) Hold(attr *unix.SysProcAttr) { a.programs.hold(attr) }

// Kill kills the guest's program, which leads a process group, with all processes that it has
// started, and the harness's commands.
func (a *Agent) Kill(pid int) { a.programs.kill(pid) }

// Connected reports whether the machine has the harness's port.
func (a *Agent) Connected() bool { return a.harness != nil }

// A Machine does for the agent what only init can do.
type Machine interface {
	// Run starts the guest program of a platform. It returns when the program runs, or an error
	// that says why it does not.
	Run(wire.Program) error

	// Prepare does what it can of the work of Mount, before the machine is saved.
	Prepare() error

	// Mount mounts directories of the host.
	Mount([]wire.Share) error

	// Configure configures the network.
	Configure(wire.Network) error

	// PowerOff ends the guest program and powers the machine off. The argument told reports
	// whether the agent has asked the program to end. The agent calls it on a goroutine of its own.
	PowerOff(told bool)
}

// Start sends a hello and answers the harness until the machine ends.
func (a *Agent) Start(m Machine) {
	a.machine = m
	if a.program.far != nil {
		go a.listen()
	}
	if a.Connected() {
		a.mu.Lock() // until serve has said hello, which comes first
		go a.serve()
	}
}

// serve sends the hello and answers the harness. The hello blocks while no harness is connected.
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
		share.Collect()
		m, err := a.harness.Receive()
		if err == nil {
			err = a.answer(m)
		}
		if err != nil {
			a.say(wire.Message{Type: wire.Failed, Payload: []byte(err.Error())})
			return
		}
	}
}

func (a *Agent) answer(m wire.Message) error {
	switch m.Type {
	case wire.PowerOff:
		a.asked.Store(true)
		go a.machine.PowerOff(a.program.ask(m)) // the end of the program is the answer
		return nil
	case wire.Statistics:
		if a.program.ask(m) {
			return nil // passOn sends the program's answer
		}
		return a.reply(m, Statistics().Encode())
	case wire.WarmUp:
		if !a.warm {
			WarmUpRuntime()
			if err := a.machine.Prepare(); err != nil {
				a.remark(err.Error()) // Mount does all the work
			}
			a.warm = true
		}
		if a.program.ask(m) {
			return nil
		}
		return a.reply(m, wire.EncodePort(a.echo.Start()))
	case wire.Run:
		p, err := wire.DecodeProgram(m.Payload)
		if err != nil {
			return err
		}
		return a.reply(m, why(a.machine.Run(p)))
	case wire.Coverage:
		go a.answerCoverage(m) // which waits for the program
		return nil
	case wire.CopyIn, wire.CopyOut, wire.Look:
		return a.call(m)
	case wire.Mount:
		shares, err := wire.DecodeShares(m.Payload)
		if err != nil {
			return err
		}
		return a.reply(m, why(a.machine.Mount(shares)))
	case wire.Configure:
		n, err := wire.DecodeNetwork(m.Payload)
		if err != nil {
			return err
		}
		return a.reply(m, why(a.machine.Configure(n)))
	case wire.Execute:
		return a.execute(m)
	case wire.Data, wire.Credit, wire.Close, wire.Signal, wire.Resize, wire.Kill:
		return a.about(m)
	case wire.Quiesce:
		a.echo.Stop()
		a.program.quiesce()
		settle()
		if err := a.freezer.freeze(); err != nil {
			a.remark("stop all programs: " + err.Error())
		}
		if err := a.network.Prepare(); err != nil {
			a.remark(err.Error()) // QEMU asks for the address when it needs it
		}
		return a.reply(m, nil)
	case wire.Restored:
		a.mu.Lock()
		a.talk++
		a.mu.Unlock()
		a.endCommands()
		r, err := wire.DecodeRestore(m.Payload)
		if err == nil {
			err = a.reconfigure(r.Network)
		}
		if err == nil {
			err = a.reseed(r)
		}
		if err != nil {
			return err
		}
		if err := a.network.Announce(); err != nil {
			defer a.remark(err.Error())
		}
		err = a.reply(m, wire.Reseeded{Clock: time.Now(), Subscribed: a.program.subscribed.Load()}.Encode())
		if failed := a.freezer.thaw(); failed != nil {
			return fmt.Errorf("let all programs continue: %w", failed)
		}
		return err
	case wire.Resume:
		if a.program.ask(m) {
			return nil
		}
		return a.reply(m, nil)
	default:
		return fmt.Errorf("unexpected request %s", m.Type)
	}
}

// passOn sends the program's answer to a request. It drops an answer that comes while the agent is
// quiet.
func (a *Agent) passOn(m wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.quiet {
		a.harness.Send(m)
	}
}

// reply answers a request. The agent is quiet from its answer to Quiesce to its answer to Restored.
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

// say sends a message that is not an answer. It waits while the agent is quiet. After a save, both
// the saved machine and each restored machine then send the message.
func (a *Agent) say(m wire.Message) { a.sayUnless(m, new(bool)) }

// sayUnless is say, but it sends nothing if never is true by then. The agent's mu guards never.
func (a *Agent) sayUnless(m wire.Message, never *bool) {
	if !a.Connected() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.quiet {
		a.loud.Wait()
	}
	if !*never {
		a.harness.Send(m) // serve notices a broken line
	}
	share.Collect()
}

// tellWithin bounds how long the agent waits for the harness to read, and for the program to answer.
const tellWithin = time.Second

// tell is like say, but gives up if the harness does not read within tellWithin.
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

// PowerOff tells the harness that the program is about to end as intended, and why.
func (a *Agent) PowerOff(why string) {
	a.tell(wire.Message{Type: wire.PowerOff, Payload: wireText(why)})
}

// remark tells the harness something for the record.
func (a *Agent) remark(text string) {
	a.tell(wire.Message{Type: wire.Remark, Payload: wireText(text)})
}

// Ended passes on the program's remaining messages and then tells the harness how the program ended.
func (a *Agent) Ended(exit wire.Exit) {
	a.program.drained()
	exit.Asked = a.asked.Load()
	a.tell(wire.Message{Type: wire.Ended, Payload: exit.Encode()})
}

// why returns the answer to a request that the guest may refuse: the reason, or nothing.
func why(err error) []byte {
	if err == nil {
		return nil
	}
	return wireText(err.Error())
}

// wireText returns the payload of a text. It cuts a text off at wire.MaxText.
func wireText(text string) []byte { return []byte(text[:min(len(text), wire.MaxText)]) }
