package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"guesthouse.example/internal/wire"
)

// A Cmd is a command to run in the guest, apart from its console, as package os/exec has it. The
// agent in the guest's init runs it, so that it works in every machine whose kernel has
// virtio_console, also before the guest's program is ready. Any number may run at once.
//
// The command is found in the PATH of the guest's init. It begins in the directory /, its standard
// input is empty, and it has no terminal. When the context of Machine.Command ends, it is killed
// with all that it has started; a guest that does not answer does that when it does. What it leaves running when it ends by itself runs on, but its
// output is not waited for.
type Cmd struct {
	Args []string // its name and its arguments

	m   *Machine
	ctx context.Context
}

// outputMost is how many bytes are kept of each of a command's two outputs.
const outputMost = 8 << 20

// Command returns a command to run in the guest, by one of its methods, once:
//
//	out, err := m.Command(ctx, "ip", "-4", "addr").Output()
//
// For a shell's syntax run "sh", "-c", "…".
func (m *Machine) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), m: m, ctx: ctx}
}

// Run runs the command and waits for its end. An error other than a *CommandError says that it
// could not be run or waited for: there is no agent, the machine has ended, ctx has.
func (c *Cmd) Run() error {
	_, err := c.run()
	return err
}

// Output is Run, and returns what the command wrote to its standard output, also with an error;
// a *CommandError has the rest. Of more than 8 MiB the rest is dropped, and then there
// is an error that says so.
func (c *Cmd) Output() ([]byte, error) {
	r, err := c.run()
	return r.out[wire.Stdout].kept, err
}

// CombinedOutput is Output of standard output and standard error together, in about the order in
// which they were written.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	r, err := c.run()
	return r.both.kept, err
}

// A CommandError says that a command in the guest ended with another status than 0 or by a signal.
// It wraps ErrGuest. A command that could not be started has the status 127, as a shell gives it,
// and Why says why.
type CommandError struct {
	Args []string
	Exit
	Stderr []byte // what it wrote to its standard error
}

func (e *CommandError) Error() string {
	text := fmt.Sprintf("%v: the command %q has ended: %v", ErrGuest, strings.Join(e.Args, " "), e.Exit)
	if last := bytes.TrimSpace(e.Stderr); len(last) > 0 {
		text += ": " + string(last[max(0, len(last)-stderrShown):])
	}
	return text
}

func (e *CommandError) Unwrap() error { return ErrGuest }

// stderrShown is how many bytes of a command's standard error its error shows: the last.
const stderrShown = 1 << 10

// A running command collects what the agent tells of it.
type running struct {
	out   [wire.Stderr + 1]output
	both  output
	exit  wire.Exit
	ended chan struct{} // closed when exit is set
}

// An output is the begin of what was written.
type output struct {
	kept []byte
	all  int // bytes that were written
}

func (o *output) add(b []byte) {
	o.all += len(b)
	o.kept = append(o.kept, b[:min(len(b), outputMost-len(o.kept))]...)
}

func (o output) cut() error {
	if o.all == len(o.kept) {
		return nil
	}
	return fmt.Errorf("it wrote %d bytes, and only the first %d are kept", o.all, len(o.kept))
}

// take keeps what the agent tells of a command. The caller holds agent.mu.
func (r *running) take(m wire.Message) error {
	if m.Type == wire.Exited {
		exit, err := wire.DecodeExit(m.Payload)
		if err == nil {
			r.exit = exit
			close(r.ended)
		}
		return err
	}
	if len(m.Payload) == 0 || m.Payload[0] != wire.Stdout && m.Payload[0] != wire.Stderr {
		return fmt.Errorf("output of %d bytes, of neither stream of a command", len(m.Payload))
	}
	r.out[m.Payload[0]].add(m.Payload[1:])
	r.both.add(m.Payload[1:])
	return nil
}

func (c *Cmd) run() (*running, error) {
	fail := func(r *running, err error) (*running, error) {
		return r, fmt.Errorf("command %q in %s: %w", strings.Join(c.Args, " "), c.m.plan.spec.Target, err)
	}
	none := &running{ended: make(chan struct{})}
	payload, err := wire.EncodeArgs(c.Args)
	if err != nil {
		return fail(none, err)
	}
	ctx, cancel := c.m.unlessCrashed(c.ctx)
	defer cancel()
	if err := c.m.agentHere(ctx); err != nil {
		return fail(none, err)
	}
	number, r, err := c.m.agent.execute(ctx, payload)
	if err != nil {
		return fail(none, c.m.orCrash(ctx, err))
	}
	select {
	case <-r.ended:
	case <-c.m.agent.ended:
		err = c.m.orCrash(ctx, c.m.agent.err)
	case <-ctx.Done():
		killed := make(chan error, 1)
		go func() {
			killed <- c.m.killCommand(number, r)
			c.m.agent.leave(number, r)
		}()
		err = context.Cause(ctx)
		select {
		case failed := <-killed:
			if failed != nil {
				err = fmt.Errorf("%w; it could not be killed: %w", err, failed)
			}
		case <-time.After(resumesWithin):
			return fail(c.m.agent.soFar(r), fmt.Errorf("%w; it is killed when the guest's agent answers", err))
		}
	}
	r = c.m.agent.leave(number, r)
	switch exit := exitOf(r.exit); {
	case err != nil:
		return fail(r, err)
	case !exit.OK():
		return r, &CommandError{c.Args, exit, r.out[wire.Stderr].kept}
	}
	if err := errors.Join(r.out[wire.Stdout].cut(), r.out[wire.Stderr].cut()); err != nil {
		return fail(r, err)
	}
	return r, nil
}

// execute has the agent run a command, of which running has all that is told then.
func (a *agent) execute(ctx context.Context, payload []byte) (number uint32, r *running, err error) {
	if err := a.lock(ctx); err != nil {
		return 0, nil, err
	}
	defer a.unlock()
	r = &running{ended: make(chan struct{})}
	a.mu.Lock() // it may have ended before send has returned
	number = a.wire.Next()
	if a.commands == nil {
		a.commands = make(map[uint32]*running)
	}
	a.commands[number] = r
	a.mu.Unlock()
	if err := a.send(ctx, wire.Message{Type: wire.Execute, Payload: payload}, nil); err != nil {
		a.leave(number, r)
		select {
		case <-a.ended:
			return 0, nil, a.err
		default:
		}
		return 0, nil, fmt.Errorf("the guest's agent is not reached: %w", err)
	}
	return number, r, nil
}

// leave takes no more of a command, and returns what there was.
func (a *agent) leave(number uint32, r *running) *running {
	a.mu.Lock()
	delete(a.commands, number)
	a.mu.Unlock()
	return a.soFar(r)
}

// soFar returns what there is of a command.
func (a *agent) soFar(r *running) *running {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &running{out: r.out, both: r.both, exit: r.exit}
}

// killWithin bounds the end of a command that is killed, in the machine's time.
const killWithin = 5 * time.Second

// killCommand ends a command with all that it has started, and waits for that.
func (m *Machine) killCommand(number uint32, r *running) error {
	if m.Console().Crash() != "" || !m.runs() {
		return nil // nobody is there to be told
	}
	ctx, cancel := m.Within(context.Background(), killWithin)
	defer cancel()
	if err := m.agent.lock(ctx); err != nil {
		return err
	}
	err := m.agent.send(ctx, wire.Message{Type: wire.Kill, Payload: wire.EncodeNumber(number)}, nil)
	m.agent.unlock()
	if err != nil {
		return err
	}
	select {
	case <-r.ended:
	case <-m.agent.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// noCommands refuses to save a machine in which commands of this harness run: no other would hear
// how they end. The caller has the turn, so that none begins.
func (a *agent) noCommands() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.commands); n > 0 {
		return fmt.Errorf("%d of its commands run: wait for their end", n)
	}
	return nil
}
