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

// A line is the program's to the agent in init, which leads on to the harness. The nil line is
// that of a program which our init has not started: it says nothing.
type line struct {
	conn      *wire.Conn
	powerOff  func() // what the harness may ask for
	prepared  bool   // serve's own, as the rehearsal is
	rehearsal agent.Rehearsal
}

// openLine takes the descriptor that init has left to the program, and says hello. What
// the program starts does not inherit it.
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
		return nil // it is somebody else's variable
	}
	l := &line{conn: wire.NewGuest(descriptor(fd)), powerOff: powerOff}
	l.conn.Send(wire.Message{Type: wire.Hello}) // where that fails so does serve
	restorations.mu.Lock()
	defer restorations.mu.Unlock()
	if len(restorations.calls) > 0 {
		l.conn.Send(wire.Message{Type: wire.Attends})
	}
	go l.serve()
	return l
}

// restorations are what OnRestore was given.
var restorations struct {
	mu    sync.Mutex
	calls []func()
}

func restored() {
	restorations.mu.Lock()
	calls := slices.Clone(restorations.calls)
	restorations.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// serve answers the agent until the program ends. After an error nobody is left to hear of it:
// the agent finds out by itself.
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
	case wire.Rehearse:
		if !l.prepared {
			agent.Prepare()
			l.prepared = true
		}
		payload = wire.EncodePort(l.rehearsal.Begin())
	case wire.Quiesce:
		l.rehearsal.End()
	case wire.Resume:
		restored()
	case wire.PowerOff:
		go l.powerOff() // the answer is that the program ends
		return nil
	default:
		return fmt.Errorf("%s is nothing that a program is asked", m.Type)
	}
	_, err := l.conn.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload})
	return err
}

// tellWithin bounds how long a program waits for a harness that does not listen.
const tellWithin = time.Second

func (l *line) tell(t wire.Type, payload []byte) {
	if l == nil {
		return
	}
	told := make(chan struct{})
	go func() {
		l.conn.Send(wire.Message{Type: t, Payload: payload}) // a broken line is serve's to notice
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(tellWithin):
	}
}

func wireText(text string) []byte { return []byte(text[:min(len(text), wire.MaxText)]) }

// statistics are the machine's and those of the program's socket services.
func statistics() wire.Stats {
	s := agent.Statistics()
	for svc := range socketservice.All() {
		st := svc.Stats()
		s.Services = append(s.Services, wire.Service{Name: svc.Name(), Sockets: uint32(len(svc.Sockets())),
			Calls: st.Calls, Errors: st.Errors, Time: st.Time, MaxTime: st.MaxTime})
	}
	return s
}

// A descriptor blocks in a thread of its own, which a restored machine wakes with less code than
// Go's poller takes.
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
