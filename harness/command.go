package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/internal/wire"
)

// A Cmd is a command to run in the guest. It is used as the Cmd of package os/exec, and its fields and methods
// mean the same unless their comments say otherwise.
//
// The agent in the guest's init runs the command, without the console. That works on every machine whose kernel
// has virtio_console, even before the guest's program is ready. Any number of commands may run at the same
// time, and none of them is held up by another one whose output nobody reads. A machine is not saved while a
// command runs.
//
// When the context of Machine.Command ends, the agent kills the command and all processes that it has started.
// If the agent does not answer, it kills them when it goes on; Wait then returns without waiting for that.
//
// Processes that the command has started may outlive it. The output of a command ends with the command: Wait
// does not wait for the output of the processes that it leaves behind.
type Cmd struct {
	// Args holds the command's name and its arguments. The agent finds a name without a slash in the PATH of the
	// guest's init. A name with a slash is a path in the guest, which begins in Dir if it is relative. If the
	// guest has no such file, the name is a path on the host: the harness copies that file into the guest and
	// runs it there, as /run/guesthouse/bin/HASH/NAME.
	//
	// A file of the host must be a script or an executable for the guest's processor. An executable that needs
	// shared libraries gets its dynamic loader and those libraries from the host, at the same paths, if the host
	// itself can run it.
	Args []string

	// Env is the command's environment, each entry "KEY=VALUE". The last value of a key counts. If Env is nil,
	// the command has the environment of the guest's init.
	Env []string

	// Dir is the command's working directory in the guest; "" is the directory /.
	Dir string

	// Stdin is the command's standard input; nil is an empty one. Wait does not wait for a Read of Stdin that is
	// under way when the command exits, and what that Read returns is lost.
	Stdin io.Reader

	// Stdout and Stderr get the command's output; nil drops it. If both are the same writer, the command has one
	// pipe for both, so that the output keeps its order. If a Write fails, the command gets SIGPIPE when it goes
	// on to write, and Wait returns the error.
	Stdout, Stderr io.Writer

	// Terminal, if it is not nil, gives the command a terminal of its own, of that size. The command's
	// standard error goes to Stdout then. After the end of Stdin, the terminal gets Ctrl-D.
	Terminal *TerminalSize

	m   *Machine
	ctx context.Context

	running *agent.Command // nil before Start
	stderr  *tail          // of a command without Stderr
	pipes   []io.Closer    // what Wait closes
	waited  bool

	exited chan struct{} // closed when the command has exited or is not followed any more
	err    error         // why it is not followed; set before exited is closed
	copies chan error    // gets the error of each output that is copied
	copied int           // how many outputs are copied
	input  struct {
		sync.Mutex
		err error // of Stdin
	}
}

// A TerminalSize is the size of a terminal in characters.
type TerminalSize struct{ Rows, Columns int }

// Command returns a command for the guest. ctx bounds the command's life:
//
//	out, err := m.Command(ctx, "ip", "-4", "addr").Output()
//
// For shell syntax run "sh", "-c", "…".
func (m *Machine) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), m: m, ctx: ctx}
}

// Run starts the command and waits until it exits. An error other than a *CommandError says that the
// command could not be run or waited for: the guest has no agent, or the machine or ctx has ended.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// maxOutput is the length limit in bytes of what Output and CombinedOutput return.
const maxOutput = 64 << 20

// Output runs the command and returns its standard output, even if it also returns an error. If the command
// writes more than 64 MiB, Output returns the first 64 MiB and an error; for more output set Stdout.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, c.failed(errors.New("its Stdout is already set"))
	}
	var out collected
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput is like Output and returns standard output and standard error together, in their order.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, c.failed(errors.New("its Stdout or Stderr is already set"))
	}
	var out collected
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// collected is output that is kept, up to its limit.
type collected struct{ bytes.Buffer }

// Write is the only method that copies use, so that the limit holds.
func (b *collected) Write(p []byte) (int, error) {
	n, _ := b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())])
	if n < len(p) {
		return n, fmt.Errorf("it wrote more than the %d bytes that are kept", maxOutput)
	}
	return n, nil
}

// Start starts the command and returns when it runs. A *CommandError says why the guest did not start it.
// After a successful Start the caller must call Wait.
func (c *Cmd) Start() error {
	if c.running != nil {
		return c.failed(errors.New("it was already started"))
	}
	request, err := c.request()
	if err != nil {
		return c.failed(err)
	}
	running, err := c.start(&request)
	if err != nil {
		return err
	}
	c.running, c.exited = running, make(chan struct{})
	c.copyStreams(request)
	go func() {
		c.err = c.m.vm.FollowCommand(c.ctx, running)
		close(c.exited)
	}()
	return nil
}

// start starts the command, and delivers its program first if the guest does not have it and the host does. A
// program of a share may need libraries that the guest does not have.
func (c *Cmd) start(request *wire.Command) (*agent.Command, error) {
	name := c.Args[0]
	delivered, err := c.m.hostFiles.has(c.ctx, name)
	if err != nil {
		return nil, c.failed(err)
	}
	for neither, libraries := "", false; ; {
		if delivered {
			path, err := c.m.deliverProgram(c.ctx, name, lastValue(c.Env, "LD_LIBRARY_PATH"))
			switch file := (*fileError)(nil); {
			case errors.As(err, &file):
				return nil, &CommandError{Args: c.Args, Exit: Exit{Status: notRunnable, Why: err.Error()}, refused: file.error}
			case err == nil:
				request.Args[0] = path
			case errors.Is(err, errNoProgram):
				neither = "; " + err.Error()
			default:
				return nil, c.failed(c.m.lineFailed(c.ctx, err))
			}
		}
		running, err := c.m.vm.StartCommand(c.ctx, *request)
		if err != nil {
			return nil, c.failed(c.m.lineFailed(c.ctx, err))
		}
		r := running.Refusal()
		switch {
		case r == nil:
			return running, nil
		case r.Status == notRunnable && r.Errno == 0 && !delivered && !libraries && c.m.sharesPath(name):
			// The kernel knows the program, and no interpreter for it: a missing one has no error number.
			libraries = true
			if err := c.m.deliverLibraries(c.ctx, name, lastValue(c.Env, "LD_LIBRARY_PATH")); err != nil {
				if file := (*fileError)(nil); errors.As(err, &file) {
					return nil, &CommandError{Args: c.Args, Exit: Exit{Status: notRunnable, Why: err.Error()}, refused: file.error}
				}
				return nil, c.failed(c.m.lineFailed(c.ctx, err))
			}
			continue
		case r.Status != notFound || delivered || !strings.Contains(name, "/"):
			return nil, &CommandError{Args: c.Args, Exit: Exit{Status: r.Status, Why: r.Why + neither}, refused: guestRefusal(r.Errno)}
		}
		delivered = true
	}
}

// request returns what the agent needs to know.
func (c *Cmd) request() (wire.Command, error) {
	r := wire.Command{Args: slices.Clone(c.Args), Env: lastValues(c.Env), Dir: c.Dir}
	if t := c.Terminal; t != nil {
		if t.Rows < 0 || t.Columns < 0 || t.Rows > 0xffff || t.Columns > 0xffff {
			return r, fmt.Errorf("a terminal of %d by %d characters", t.Rows, t.Columns)
		}
		if c.Stderr != nil {
			return r, errors.New("its Stderr is set, and a command with a Terminal has no standard error of its own")
		}
		r.Terminal, r.Size = true, wire.Size{Rows: uint16(t.Rows), Columns: uint16(t.Columns)}
		r.Piped[wire.Stdin], r.Piped[wire.Stdout] = true, true
		return r, nil
	}
	r.Merged = c.Stdout != nil && sameWriter(c.Stdout, c.Stderr)
	r.Piped = [wire.Streams]bool{c.Stdin != nil, c.Stdout != nil, !r.Merged}
	return r, nil
}

// sameWriter reports whether two writers are the same. Writers whose type cannot be compared are not.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() { recover() }()
	return a == b
}

// lastValues returns the environment without the values that a later one of the same key replaces.
func lastValues(env []string) []string {
	if env == nil {
		return nil
	}
	all, at := make([]string, 0, len(env)), make(map[string]int)
	for _, v := range env {
		key, _, ok := strings.Cut(v, "=")
		if i, there := at[key]; ok && there {
			all[i] = v
			continue
		}
		at[key] = len(all)
		all = append(all, v)
	}
	return all
}

// lastValue returns the value of a key in an environment.
func lastValue(env []string, key string) (value string) {
	for _, v := range env {
		if k, text, ok := strings.Cut(v, "="); ok && k == key {
			value = text
		}
	}
	return value
}

// Wait waits until the command has exited and all its output has been written. Then it closes the pipes of the
// command. It returns nil if the command has exited with status 0, a *CommandError if it has ended
// otherwise, and the cause of ctx if ctx has ended before.
func (c *Cmd) Wait() error {
	switch {
	case c.running == nil:
		return c.failed(errors.New("it was not started"))
	case c.waited:
		return c.failed(errors.New("it was already waited for"))
	}
	c.waited = true
	<-c.exited
	for _, p := range c.pipes {
		p.Close()
	}
	copyErr, err := c.waitCopies(), c.err
	c.running.Release()
	if err != nil {
		return c.failed(c.m.lineFailed(c.ctx, err))
	}
	exit := exitOf(c.running.Exit())
	switch {
	case !exit.OK() && copyErr != nil: // which may have ended the command
		return c.failed(fmt.Errorf("%w; %w", copyErr, &CommandError{Args: c.Args, Exit: exit}))
	case !exit.OK():
		return &CommandError{Args: c.Args, Exit: exit, Stderr: c.stderr.Bytes()}
	}
	c.input.Lock()
	defer c.input.Unlock()
	if err := errors.Join(copyErr, c.input.err); err != nil {
		return c.failed(err)
	}
	return nil
}

// Signal sends a signal to the command's process group. It returns os.ErrProcessDone if the command has exited.
func (c *Cmd) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	switch {
	case !ok:
		return c.failed(fmt.Errorf("the signal %v has no number", sig))
	case c.running == nil:
		return c.failed(errors.New("it was not started"))
	}
	select {
	case <-c.running.Exited():
		return os.ErrProcessDone
	default:
	}
	if err := c.running.Signal(c.ctx, int(number)); err != nil {
		return c.failed(err)
	}
	return nil
}

// Resize changes the size of the command's terminal. The command gets SIGWINCH.
func (c *Cmd) Resize(size TerminalSize) error {
	if c.running == nil {
		return c.failed(errors.New("it was not started"))
	}
	if err := c.running.Resize(c.ctx, wire.Size{Rows: uint16(size.Rows), Columns: uint16(size.Columns)}); err != nil {
		return c.failed(err)
	}
	return nil
}
