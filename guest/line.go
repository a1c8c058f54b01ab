package guest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/guest/socketservice"
	"guesthouse.example/internal/wire"
)

// A line connects the program to the agent in init, which passes messages on to the harness. A program
// that another init has started has a nil line, which sends nothing.
type line struct {
	conn     *wire.Conn
	powerOff func() // called when the harness asks for it

	// These belong to serve.
	warm bool // agent.WarmUpRuntime was called
	echo agent.WarmUpEcho
}

// openLine opens the line on the descriptor that the program has inherited from init, and says
// hello. The program's children do not inherit the descriptor.
func openLine(powerOff func()) *line {
	text, ok := os.LookupEnv(wire.ProgramVariable)
	if !ok {
		return nil
	}
	os.Unsetenv(wire.ProgramVariable)
	fd, err := strconv.Atoi(text)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	}
	if err != nil {
		return nil // guesthouse's init has not set the variable
	}
	l := &line{conn: wire.NewGuest(descriptor(fd)), powerOff: powerOff}
	l.conn.Send(wire.Message{Type: wire.Hello}) // if this fails, serve fails too
	onRestore.mu.Lock()
	defer onRestore.mu.Unlock()
	if len(onRestore.funcs) > 0 {
		l.conn.Send(wire.Message{Type: wire.Subscribe})
	}
	go l.serve()
	return l
}

// onRestore holds the functions that OnRestore was given.
var onRestore struct {
	mu    sync.Mutex
	funcs []func()
}

func restored() {
	onRestore.mu.Lock()
	funcs := slices.Clone(onRestore.funcs)
	onRestore.mu.Unlock()
	for _, f := range funcs {
		f()
	}
}

// serve answers the agent until the program ends or an error occurs. It does not report the error,
// because the agent notices a broken line too.
func (l *line) serve() {
	for {
		m, err := l.conn.Receive()
		if err != nil || l.answer(m) != nil {
			return
		}
	}
}

func (l *line) answer(m wire.Message) error {
	var payload []byte
	switch m.Type {
	case wire.Statistics:
		payload = statistics().Encode()
	case wire.WarmUp:
		if !l.warm {
			agent.WarmUpRuntime()
			l.warm = true
		}
		payload = wire.EncodePort(l.echo.Start())
	case wire.Quiesce:
		l.echo.Stop()
	case wire.Resume:
		restored()
	case wire.Coverage:
		writeCoverage()
	case wire.PowerOff:
		go l.powerOff() // the end of the program is the answer
		return nil
	default:
		return fmt.Errorf("unexpected request %s", m.Type)
	}
	_, err := l.conn.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload})
	return err
}

// tellWithin bounds how long a program waits for an agent that does not read.
const tellWithin = time.Second

// tell sends a message. It gives up if the agent does not read within tellWithin.
func (l *line) tell(t wire.Type, payload []byte) {
	if l == nil {
		return
	}
	told := make(chan struct{})
	go func() {
		l.conn.Send(wire.Message{Type: t, Payload: payload}) // serve notices a broken line
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(tellWithin):
	}
}

// wireText returns the payload of a text. It cuts a text off at wire.MaxText.
func wireText(text string) []byte { return []byte(text[:min(len(text), wire.MaxText)]) }

// statistics returns the statistics of the machine and of the program's socket services.
func statistics() wire.Stats {
	s := agent.Statistics()
	for svc := range socketservice.All() {
		st := svc.Stats()
		s.Services = append(s.Services, wire.Service{Name: svc.Name(), Sockets: uint32(len(svc.Sockets())),
			Calls: st.Calls, Errors: st.Errors, Time: st.Time, MaxTime: st.MaxTime})
	}
	return s
}

// A descriptor reads and writes without Go's poller. Waking a blocked thread runs less code than the
// poller does, and in a restored machine all code is slow at first.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), b)
		if err != unix.EINTR {
			if n == 0 && err == nil {
				return 0, os.ErrClosed
			}
			return n, os.NewSyscallError("read", err)
		}
	}
}

func (d descriptor) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := unix.Write(int(d), b[done:])
		if n > 0 {
			done += n
		}
		if err != nil && err != unix.EINTR {
			return done, os.NewSyscallError("write", err)
		}
	}
	return done, nil
}
