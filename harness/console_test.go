package harness

import (
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"guesthouse.example/harness/console"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testConsole returns a console whose guest is the test: says prints text, and returns when the
// console has it. The guest says nothing more about a crash.
func testConsole(t *testing.T) (c *console.Console, says func(text string)) {
	near, far := net.Pipe()
	complete := make(chan struct{})
	close(complete)
	c = console.New(near, console.Options{CrashComplete: complete})
	t.Cleanup(func() { near.Close(); far.Close(); <-c.Done() })
	return c, func(text string) {
		io.WriteString(far, text)
		far.Write(nil) // is read when the console has taken the text
	}
}
