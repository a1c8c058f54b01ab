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

// commands are the harness's running commands.
type commands struct {
	mu      sync.Mutex
	running map[uint32]*command // by the sequence number of the request
}

// A command runs without the console, in a session and a control group of its own.
type command struct {
	group *group
	pid   int
}

// NotStarted is the exit status of a command that cannot be started, as in a shell.
const NotStarted = 127

// execute starts a command. Its output and its exit status follow in messages that answer the
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
	args[0] = path            // u-root's busybox resolves "sh", a link to another command, only by its path
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
		// Without a group of its own the command runs in the program's group.
		if c.group, err = newGroup("command-"+strconv.FormatUint(uint64(number), 10), a.programs); err != nil {
			a.remark(err.Error())
		}
	}
	attr := &unix.SysProcAttr{Setsid: true}
	c.group.hold(attr)
	a.commands.mu.Lock() // so that killCommand finds the command as soon as it runs
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
		c.group.remove()
		return fail(err)
	}
	go a.follow(number, c, out[0], errs[0], ended)
	return nil
}

// maxOutput is how many bytes of output one message carries at most.
const maxOutput = 32 << 10

// follow sends a command's output until the command ends, and then its exit status. It does not
// wait for the end of the output, because processes that the command leaves behind may keep the pipe
// open forever.
func (a *Agent) follow(number uint32, c *command, out, errs *os.File, ended <-chan unix.WaitStatus) {
	var streams sync.WaitGroup
	streams.Go(func() { a.sendOutput(number, wire.Stdout, out) })
	streams.Go(func() { a.sendOutput(number, wire.Stderr, errs) })
	status := <-ended
	out.SetReadDeadline(time.Unix(1, 0)) // the pipes hold all that the command has written
	errs.SetReadDeadline(time.Unix(1, 0))
	streams.Wait()
	a.commands.mu.Lock()
	delete(a.commands.running, number)
	a.commands.mu.Unlock()
	c.group.remove()
	a.say(wire.Message{Type: wire.Exited, Answers: number, Payload: ExitOf(status).Encode()})
}

// sendOutput sends what it reads from a pipe, up to the pipe's end. After the pipe's deadline it sends
// what the pipe holds and returns.
func (a *Agent) sendOutput(number uint32, stream byte, pipe *os.File) {
	buf := make([]byte, 1+maxOutput)
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
	go func() { // a process that still writes must not get SIGPIPE
		pipe.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, pipe)
		pipe.Close()
	}()
}

// pipeSize is the capacity of a pipe in bytes, by pipe(7).
const pipeSize = 64 << 10

// readNow reads without waiting.
func readNow(pipe *os.File, b []byte) (n int) {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return 0
	}
	conn.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), b) })
	return n
}

// killCommand kills a command with all its processes. It does nothing if the command has ended.
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

// ExitOf returns how a process with a wait status ended.
func ExitOf(status unix.WaitStatus) wire.Exit {
	if status.Signaled() {
		return wire.Exit{Signal: int(status.Signal())}
	}
	return wire.Exit{Status: status.ExitStatus()}
}
