// Package agent is the guest's end of the line to the harness: it tells what the
// machine does, and makes a machine that was saved and restored one of its own.
package agent

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// An Agent talks to the harness. The nil Agent is that of a machine without the
// port: it says nothing.
type Agent struct {
	conn     *wire.Conn
	port     *port
	random   int    // descriptor of /dev/urandom
	powerOff func() // what the harness may ask for
	restored func() // what a restored machine does before it says that it is

	mu    sync.Mutex     // held while a message is sent
	quiet bool           // from quiesce to restored
	kept  []wire.Message // what is to be told afterwards

	rehearsal *net.UDPConn // open from rehearse to quiesce or restored; serve's own
	prepared  bool         // by prepare, also before the machine was saved; likewise
}

// Open finds the port. Without one it returns nil and no error.
func Open() (*Agent, error) {
	p, err := openPort()
	if p == nil {
		return nil, err
	}
	random, err := unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		p.Close()
		return nil, &os.PathError{Op: "open", Path: "/dev/urandom", Err: err}
	}
	return &Agent{conn: wire.NewGuest(p), port: p, random: random}, nil
}

// Start says hello and answers the harness until the machine ends. When the harness
// asks for it, powerOff is called, on a goroutine of its own. In a machine that was restored
// and has its new clock, entropy and identity, restored is called before the harness learns it.
func (a *Agent) Start(powerOff, restored func()) {
	if a == nil {
		return
	}
	a.powerOff, a.restored = powerOff, restored
	a.mu.Lock() // until hello, which is first, is said
	go a.serve()
}

// serve is the agent's goroutine. It says hello itself, because nobody may be at
// the other end, and then that waits.
func (a *Agent) serve() {
	defer a.port.Close()
	id := bootID()
	_, err := a.conn.Send(wire.Message{Type: wire.Hello, Payload: id[:]})
	a.mu.Unlock()
	if err != nil {
		return
	}
	for {
		m, err := a.conn.Receive()
		if err == nil {
			err = a.answer(m)
		}
		if err != nil {
			a.say(wire.Message{Type: wire.Failed, Payload: []byte(err.Error())}) // there is nobody else to tell
			return
		}
	}
}

// say sends what was not asked for. While the agent is quiet that waits: the machine that
// goes on says it, and so does each one that is restored.
func (a *Agent) say(m wire.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet {
		a.kept = append(a.kept, m)
		return nil
	}
	_, err := a.conn.Send(m)
	return err
}

func (a *Agent) answer(m wire.Message) error {
	var payload []byte
	switch m.Type {
	case wire.Statistics:
		payload = statistics().Encode()
	case wire.Quiesce:
		a.endRehearsal()
	case wire.PowerOff:
		go a.powerOff() // the answer is that the machine is about to
		return nil
	case wire.Rehearse:
		payload = wire.EncodePort(a.rehearse())
	case wire.Restored:
		a.endRehearsal()
		r, err := wire.DecodeRestore(m.Payload)
		if err != nil {
			return err
		}
		if err := a.restore(r); err != nil {
			return err
		}
		a.restored()
		payload = wire.EncodeClock(time.Now())
	default:
		return fmt.Errorf("%s is nothing that an agent is asked", m.Type)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quiet = m.Type == wire.Quiesce
	_, err := a.conn.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload})
	for err == nil && !a.quiet && len(a.kept) > 0 {
		_, err = a.conn.Send(a.kept[0])
		a.kept = a.kept[1:]
	}
	return err
}

// Ready tells that the machine is.
func (a *Agent) Ready() { a.tell(wire.Ready, func() []byte { return statistics().Encode() }) }

// Event tells what the guest has to say, at most wire.MaxText bytes of it.
func (a *Agent) Event(text string) { a.tell(wire.Event, wireText(text)) }

// PowerOff tells that the machine is about to, and why.
func (a *Agent) PowerOff(why string) { a.tell(wire.PowerOff, wireText(why)) }

func wireText(text string) func() []byte {
	return func() []byte { return []byte(text[:min(len(text), wire.MaxText)]) }
}

// tellWithin bounds how long a guest waits for a harness that does not listen.
const tellWithin = time.Second

func (a *Agent) tell(t wire.Type, payload func() []byte) {
	if a == nil {
		return
	}
	told := make(chan struct{})
	go func() {
		a.say(wire.Message{Type: t, Payload: payload()}) // a broken line is serve's to notice
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(tellWithin):
	}
}

var renewed atomic.Pointer[wire.BootID] // nil until the machine is restored

// BootID returns what no other boot and no other restored machine has, written
// as in /proc/sys/kernel/random/boot_id, which is where it comes from until the
// machine is saved or restored.
func BootID() string { return bootID().String() }

func bootID() wire.BootID {
	if id := renewed.Load(); id != nil {
		return *id
	}
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	id, parseErr := wire.ParseBootID(string(text))
	if err != nil || parseErr != nil { // a kernel without it
		rand.Read(id[:])
		renewed.CompareAndSwap(nil, &id)
		return *renewed.Load()
	}
	return id
}
