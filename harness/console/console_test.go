package console

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A guestLine is the guest's end of the line of a console.
type guestLine struct {
	net.Conn
	console *Console
	record  *syncBuffer
}

func newGuestLine(t *testing.T) *guestLine {
	near, far := net.Pipe()
	g := &guestLine{Conn: far, record: new(syncBuffer)}
	g.console = New(near, Options{Record: g.record})
	t.Cleanup(func() { far.Close(); near.Close(); <-g.console.Done() })
	return g
}

// nowhere is the line of a console that does not read it. The test appends to the console itself.
var nowhere = struct {
	io.Reader
	io.Writer
}{nil, io.Discard}

// print prints text and returns when the console has read it.
func (g *guestLine) print(text string) { io.WriteString(g, text) }

func expect(t *testing.T, c *Console, pattern string) []string {
	t.Helper()
	match, err := c.Expect(within(t, 10*time.Second), pattern)
	require.NoError(t, err)
	return match
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestTailReturnsTheLastLines(t *testing.T) {
	c := newConsole(nowhere, Options{})
	require.Empty(t, c.Tail(2))
	c.append([]byte("one\ntwo\nthree\n"))
	require.Equal(t, []string{"two", "three"}, c.Tail(2))
	require.Equal(t, []string{"one", "two", "three"}, c.Tail(9))
}
