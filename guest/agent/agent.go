// Package agent is the guest's end of the line to the harness: it tells what the
// machine does, and makes a machine that was saved and restored one of its own.
package agent

import (
	"crypto/rand"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/internal/wire"
)

// An Agent talks to the harness. The nil Agent is that of a machine without the
// port: it says nothing.
type Agent struct {
	conn *wire.Conn
	port *port

	mu    sync.Mutex // held while a message that answers nothing is sent
	quiet bool       // from quiesce to restored
}

// Start finds the port, says hello and answers the harness until the machine
// ends. Without a port it returns nil and no error.
func Start() (*Agent, error) {
	p, err := openPort()
	if p == nil {
		return nil, err
	}
	a := &Agent{conn: wire.NewGuest(p), port: p}
	a.mu.Lock() // until hello, which is first, is said
	go a.serve()
	return a, nil
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
			a.say(wire.Failed, []byte(err.Error())) // there is nobody else to tell
			return
		}
	}
}

// say sends what was not asked for; while the agent is quiet that is dropped.
func (a *Agent) say(t wire.Type, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet {
		return nil
	}
	_, err := a.conn.Send(wire.Message{Type: t, Payload: payload})
	return err
}

func (a *Agent) answer(m wire.Message) error {
	var payload []byte
	switch m.Type {
	case wire.Statistics:
		payload = statistics().Encode()
	case wire.Quiesce:
	case wire.Restored:
		r, err := wire.DecodeRestore(m.Payload)
		if err != nil {
			return err
		}
		if err := restore(r); err != nil {
			return err
		}
		payload = wire.EncodeClock(time.Now())
	default:
		return fmt.Errorf("%s is nothing that an agent is asked", m.Type)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quiet = m.Type == wire.Quiesce
	_, err := a.conn.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload})
	return err
}

// Ready tells that the machine is.
func (a *Agent) Ready() { a.tell(wire.Ready, func() []byte { return statistics().Encode() }) }

// PowerOff tells that the machine is about to.
func (a *Agent) PowerOff() { a.tell(wire.PowerOff, func() []byte { return nil }) }

// tellWithin bounds how long a guest waits for a harness that does not listen.
const tellWithin = time.Second

func (a *Agent) tell(t wire.Type, payload func() []byte) {
	if a == nil {
		return
	}
	told := make(chan struct{})
	go func() {
		a.say(t, payload()) // a broken line is serve's to notice
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
