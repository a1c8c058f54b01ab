package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// commands are the harness's commands that run, or whose streams have not ended.
type commands struct {
	mu     sync.Mutex
	all    map[uint32]*command // by the sequence number of the request
	null   int                 // descriptor of /dev/null; 0 before the first command
	groups int                 // how many control groups were made
	spare  []*group            // of these, the empty ones
}

// A command runs without the console, in a session and a control group of its own.
type command struct {
	agent    *Agent
	number   uint32
	group    *group
	pid      int
	terminal *os.File // the agent's end; nil without a terminal

	in  *input
	out [wire.Streams]*output // nil for Stdin, and for a stream that is not piped

	mu    sync.Mutex
	ended bool // the process has ended, and its number may be that of another one

	stale bool // the command belongs to an earlier conversation; guarded by agent.mu
}

// closeStreams ends all streams, without the bytes that were not read yet.
func (c *command) closeStreams() {
	if c.in != nil {
		c.in.close()
	}
	for _, out := range c.out {
		if out != nil {
			out.drop()
		}
	}
}

// execute starts a command. Its output and its exit status follow in messages that answer the
// request.
func (a *Agent) execute(m wire.Message) error {
	request, err := wire.DecodeCommand(m.Payload)
	if err != nil {
		return err
	}
	c := &command{agent: a, number: m.Sequence}
	ended, err := c.start(request)
	if err != nil {
		c.say(wire.Refused, refusal(err).Encode())
		return nil
	}
	c.say(wire.Started, nil)
	go c.follow(ended)
	return nil
}

// start starts a command. The channel gets its wait status when it ends.
func (c *command) start(r wire.Command) (ended <-chan unix.WaitStatus, err error) {
	dir := filepath.Join("/", r.Dir)
	if r.Dir != "" {
		if err := isDirectory(dir); err != nil {
			return nil, &directoryError{err}
		}
	}
	path := r.Args[0]
	if !strings.Contains(path, "/") {
		path, err = lookPath(path)
	} else if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if err != nil {
		return nil, err
	}
	r.Args[0] = path // u-root's busybox resolves "sh", a link to another command, only by its path
	env := r.Env
	if env == nil {
		env = os.Environ()
		if r.Dir != "" { // as os/exec does
			env = append(slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "PWD=") }), "PWD="+dir)
		}
	}
	attr := &unix.SysProcAttr{Setsid: true}
	files, err := c.open(r, attr)
	if err != nil {
		return nil, err
	}
	defer files.closeCommands()
	a := c.agent
	c.group = a.group()
	c.group.hold(attr)
	a.commands.mu.Lock() // so that the messages about the command find it as soon as it runs
	c.pid, ended, err = a.children.Start(func() (int, error) {
		return syscall.ForkExec(path, r.Args, &syscall.ProcAttr{Dir: dir, Env: env, Files: files.descriptors(), Sys: attr})
	})
	if err == nil {
		a.commands.all[c.number] = c
	}
	a.commands.mu.Unlock()
	if err != nil {
		a.giveBack(c.group)
		files.closeAgents()
		return nil, startError(path, err)
	}
	return ended, nil
}

// follow sends a command's output, and its exit status when it ends. Processes that the command leaves
// behind may keep the pipes open forever, so a stream ends when all is sent that was in its pipe at the
// command's end.
func (c *command) follow(ended <-chan unix.WaitStatus) {
	if c.in != nil {
		go c.in.copy()
	}
	var outputs sync.WaitGroup
	for _, out := range c.out {
		if out != nil {
			outputs.Go(out.copy)
		}
	}
	status := <-ended
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	if c.in != nil {
		c.in.close()
	}
	for _, out := range c.out {
		if out != nil {
			out.lastBytes()
		}
	}
	c.say(wire.Exited, ExitOf(status).Encode())
	outputs.Wait()
	c.agent.commands.mu.Lock()
	if c.agent.commands.all[c.number] == c {
		delete(c.agent.commands.all, c.number)
	}
	c.agent.commands.mu.Unlock()
	c.agent.giveBack(c.group)
	if c.terminal != nil {
		c.terminal.Close()
	}
}

// about handles a message about a command. The command may have ended.
func (a *Agent) about(m wire.Message) error {
	a.commands.mu.Lock()
	c := a.commands.all[m.Answers]
	a.commands.mu.Unlock()
	if c == nil {
		return nil
	}
	switch m.Type {
	case wire.Kill:
		c.group.kill(c.pid) // even of a command that has ended: its processes may hold its streams open
		return nil
	case wire.Signal:
		n, err := wire.DecodeNumber(m.Payload)
		if err == nil {
			c.signal(unix.Signal(n))
		}
		return err
	case wire.Resize:
		size, err := wire.DecodeSize(m.Payload)
		if err == nil && c.terminal != nil {
			if failed := resize(c.terminal, size); failed != nil { // the command may have ended just now
				a.remark(failed.Error())
			}
		}
		return err
	}
	stream, rest, err := wire.DecodeStream(m.Payload)
	switch {
	case err != nil:
		return err
	case m.Type == wire.Credit:
		n, err := wire.DecodeNumber(rest)
		if err == nil && c.out[stream] != nil {
			err = c.out[stream].allowance.Grant(n)
		}
		return err
	case stream == wire.Stdin && c.in != nil:
		if m.Type == wire.Close {
			c.in.end()
			return nil
		}
		return c.in.data.Receive(rest)
	case m.Type == wire.Close && c.out[stream] != nil:
		c.out[stream].drop()
	}
	return nil
}

// signal sends a signal to the command's process group, unless the command has ended.
func (c *command) signal(s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		unix.Kill(-c.pid, s)
	}
}

// say sends a message about the command.
func (c *command) say(t wire.Type, payload []byte) {
	c.agent.sayUnless(wire.Message{Type: t, Answers: c.number, Payload: payload}, &c.stale)
}

// endCommands kills all commands when a conversation begins. The harness of that conversation does not know
// them, so they send no more messages.
func (a *Agent) endCommands() {
	a.commands.mu.Lock()
	defer a.commands.mu.Unlock()
	for _, c := range a.commands.all {
		a.mu.Lock()
		c.stale = true
		a.mu.Unlock()
		c.group.kill(c.pid)
		c.closeStreams()
	}
	clear(a.commands.all)
}

// ExitOf returns how a process with a wait status ended.
func ExitOf(status unix.WaitStatus) wire.Exit {
	if status.Signaled() {
		return wire.Exit{Signal: int(status.Signal())}
	}
	return wire.Exit{Status: status.ExitStatus()}
}
