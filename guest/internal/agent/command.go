package agent

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// commands are those of the harness that run, by the sequence number of the request.
type commands struct {
	mu      sync.Mutex
	running map[uint32]*command
}

// A command runs apart from the console, in a session and a control group of its own.
type command struct {
	group *group
	pid   int
}

// NotStarted is a shell's status of a command that cannot be started.
const NotStarted = 127

// execute starts a command. What it writes and how it ends is told by messages that answer the
// request.
func (a *Agent) execute(m wire.Message) error {
	args, err := wire.DecodeArgs(m.Payload)
	if err != nil {
		return err
	}
	number := m.Sequence
	fail := func(err error) error {
		a.say(wire.Message{Type: wire.Exited, Answers: number, Payload: wire.Exit{Status: NotStarted, Why: err.Error()}.Encode()})
		return nil
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fail(err)
	}
	args[0] = path            // busybox finds "sh", a link to another of its commands, only by its path
	var out, errs [2]*os.File // read, write
	for _, p := range []*[2]*os.File{&out, &errs} {
		if p[0], p[1], err = os.Pipe(); err != nil {
			return fail(err)
		}
		defer p[1].Close()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	defer null.Close()
	c := &command{}
	if a.programs != nil {
		// Without a group of its own it is in the program's.
		if c.group, err = newGroup("command-"+strconv.FormatUint(uint64(number), 10), a.programs); err != nil {
			a.remark(err.Error())
		}
	}
	attr := &unix.SysProcAttr{Setsid: true}
	c.group.hold(attr)
	a.commands.mu.Lock() // so that it can be killed as soon as it runs
	pid, ended, err := a.children.Start(func() (int, error) {
		p, err := os.StartProcess(path, args, &os.ProcAttr{Dir: "/", Env: os.Environ(), Files: []*os.File{null, out[1], errs[1]}, Sys: attr})
		if err != nil {
			return 0, err
		}
		pid := p.Pid
		return pid, p.Release()
	})
	if err == nil {
		c.pid = pid
		a.commands.running[number] = c
	}
	a.commands.mu.Unlock()
	if err != nil {
		c.group.leave()
		return fail(err)
	}
	go a.attend(number, c, out[0], errs[0], ended)
	return nil
}

// outputAtOnce is the most that one message carries, in bytes.
const outputAtOnce = 32 << 10

// attend passes on what a command writes until it has ended, and no longer: what it has left
// running may keep its output open for ever.
func (a *Agent) attend(number uint32, c *command, out, errs *os.File, ended <-chan unix.WaitStatus) {
	var passed sync.WaitGroup
	passed.Go(func() { a.pass(number, wire.Stdout, out) })
	passed.Go(func() { a.pass(number, wire.Stderr, errs) })
	status := <-ended
	out.SetReadDeadline(time.Unix(1, 0)) // what it has written is in the pipes
	errs.SetReadDeadline(time.Unix(1, 0))
	passed.Wait()
	a.commands.mu.Lock()
	delete(a.commands.running, number)
	a.commands.mu.Unlock()
	c.group.leave()
	a.say(wire.Message{Type: wire.Exited, Answers: number, Payload: ExitOf(status).Encode()})
}

// pass passes on the output of a pipe, up to its end or its deadline.
func (a *Agent) pass(number uint32, stream byte, pipe *os.File) {
	buf := make([]byte, 1+outputAtOnce)
	buf[0] = stream
	say := func(n int) {
		if n > 0 {
			a.say(wire.Message{Type: wire.Output, Answers: number, Payload: buf[:1+n]})
		}
	}
	for {
		n, err := pipe.Read(buf[1:])
		say(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			pipe.Close()
			return
		}
	}
	for left := pipeSize; left > 0; {
		n := readNow(pipe, buf[1:])
		if n <= 0 {
			break
		}
		say(n)
		left -= n
	}
	go func() { // whoever still writes there is not to die of it
		pipe.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, pipe)
		pipe.Close()
	}()
}

// pipeSize is what a pipe holds. Source: pipe(7).
const pipeSize = 64 << 10

// readNow reads what is there already.
func readNow(pipe *os.File, b []byte) (n int) {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return 0
	}
	conn.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), b) })
	return n
}

// killCommand ends a command with all that it has started. One that has ended already is told.
func (a *Agent) killCommand(m wire.Message) error {
	number, err := wire.DecodeNumber(m.Payload)
	if err != nil {
		return err
	}
	a.commands.mu.Lock()
	defer a.commands.mu.Unlock()
	if c := a.commands.running[number]; c != nil {
		c.group.kill(c.pid)
	}
	return nil
}

// ExitOf is how a process ended.
func ExitOf(status unix.WaitStatus) wire.Exit {
	if status.Signaled() {
		return wire.Exit{Signal: int(status.Signal())}
	}
	return wire.Exit{Status: status.ExitStatus()}
}
