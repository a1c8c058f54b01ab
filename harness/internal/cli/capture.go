package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"guesthouse.example/harness"
)

const captureUsage = "the `file` for the frames of the machine's network card, for Wireshark (pcap, or pcapng with -net); - is standard output, and the console then goes to standard error"

// toStdout is the file name that stands for standard output.
const toStdout = "-"

// A capture copies the frames of a machine into a file or to standard output while the machine runs.
type capture struct {
	to   io.WriteCloser
	done chan error
}

// openCapture opens what -capture names; nil if it names nothing. If standard output is to have the frames, the
// console goes to standard error.
func openCapture(name string, std *stdio) (*capture, error) {
	switch name {
	case "":
		return nil, nil
	case toStdout:
		to := nopCloser{std.out}
		std.out = std.err
		if f, ok := to.Writer.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, fmt.Errorf("run: -capture -: standard output is a terminal: write into a file, or into a pipe as in run -capture - | wireshark -k -i - (%w; see -h)", errUsage)
		}
		return &capture{to: to}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("run: -capture: %w", err)
	}
	return &capture{to: f}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// start begins to copy.
func (c *capture) start(m *harness.Machine) {
	if c == nil {
		return
	}
	c.done = make(chan error, 1)
	go func() {
		c.done <- m.FollowCapture(context.Background(), 0, c.to)
	}()
}

// finish waits for the last frame of a machine that has ended, and returns the first error. When ctx ends, it waits no
// longer for a reader that takes nothing.
func (c *capture) finish(ctx context.Context) (err error) {
	if c == nil {
		return nil
	}
	select {
	case err = <-c.done:
	case <-ctx.Done():
		return nil
	}
	if closeErr := c.to.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}
