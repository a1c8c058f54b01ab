package harnesstest

import (
	"context"
	"io"
	"os"

	"guesthouse.example/harness"
)

// A Cmd is a command in the guest of a test's machine. It has the fields of [harness.Cmd], and the same
// methods without errors: a method that fails ends the test. Start, Wait and the methods that include them wait for
// at most [Within] of the machine's time. Then the guest kills the command, and the test fails. A command
// that still runs when the test ends is killed.
//
// For a command that may fail or that takes longer, use the Command method of the field Machine.
type Cmd struct {
	*harness.Cmd
	m   *Machine
	end context.CancelCauseFunc
}

// Command returns a command for the guest; see [harness.Machine.Command].
func (m *Machine) Command(name string, args ...string) *Cmd {
	// In a Cleanup the test's context has already ended.
	ctx, end := context.WithCancelCause(context.WithoutCancel(m.t.Context()))
	m.t.Cleanup(func() { end(context.Canceled) })
	return &Cmd{m.Machine.Command(ctx, name, args...), m, end}
}

// do calls a method of the command. The command ends if the method takes too long.
func (c *Cmd) do(f func() error) {
	c.m.t.Helper()
	c.m.do(func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
		defer stop()
		return f()
	})
}

// Run runs the command and waits until it exits. The test fails if the status is not 0.
func (c *Cmd) Run() {
	c.m.t.Helper()
	c.do(c.Cmd.Run)
}

// Output runs the command and returns its standard output.
func (c *Cmd) Output() string {
	c.m.t.Helper()
	return c.output(c.Cmd.Output)
}

// CombinedOutput runs the command and returns its standard output and standard error.
func (c *Cmd) CombinedOutput() string {
	c.m.t.Helper()
	return c.output(c.Cmd.CombinedOutput)
}

func (c *Cmd) output(run func() ([]byte, error)) (out string) {
	c.m.t.Helper()
	c.do(func() error {
		b, err := run()
		out = string(b)
		return err
	})
	return out
}

// Start starts the command.
func (c *Cmd) Start() {
	c.m.t.Helper()
	c.do(c.Cmd.Start)
}

// Wait waits until the command exits. The test fails if the status is not 0.
func (c *Cmd) Wait() {
	c.m.t.Helper()
	c.do(c.Cmd.Wait)
}

// Signal sends a signal to the command's process group.
func (c *Cmd) Signal(sig os.Signal) {
	c.m.t.Helper()
	c.do(func() error { return c.Cmd.Signal(sig) })
}

// Resize changes the size of the command's terminal.
func (c *Cmd) Resize(size harness.TerminalSize) {
	c.m.t.Helper()
	c.do(func() error { return c.Cmd.Resize(size) })
}

// StdinPipe returns a pipe to the command's standard input. The pipe's methods return errors.
func (c *Cmd) StdinPipe() io.WriteCloser {
	c.m.t.Helper()
	return pipe(c, c.Cmd.StdinPipe)
}

// StdoutPipe returns a pipe from the command's standard output. The pipe's methods return errors.
func (c *Cmd) StdoutPipe() io.ReadCloser {
	c.m.t.Helper()
	return pipe(c, c.Cmd.StdoutPipe)
}

// StderrPipe returns a pipe from the command's standard error. The pipe's methods return errors.
func (c *Cmd) StderrPipe() io.ReadCloser {
	c.m.t.Helper()
	return pipe(c, c.Cmd.StderrPipe)
}

func pipe[P any](c *Cmd, open func() (P, error)) P {
	c.m.t.Helper()
	p, err := open()
	if err != nil {
		c.m.fatal(err)
	}
	return p
}
