// Package testconsole makes consoles for the harness's own tests, which print on them in place of a guest.
package testconsole

import (
	"io"
	"net"
	"testing"

	"guesthouse.example/harness/console"
)

// New returns a console, and a function that prints text on it as a guest does and returns when the
// console has the text. The console does not wait for the rest of a crash.
func New(t *testing.T) (c *console.Console, print func(text string)) {
	near, far := net.Pipe()
	complete := make(chan struct{})
	close(complete)
	c = console.New(near, console.Options{CrashComplete: complete})
	t.Cleanup(func() { near.Close(); far.Close(); <-c.Done() })
	return c, func(text string) {
		io.WriteString(far, text)
		far.Write(nil) // returns when the console has read the text before it
	}
}
