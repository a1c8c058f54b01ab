package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A guestLine is the guest's end of a serial line whose console is under test.
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

// nowhere is the line of a console that a test appends to by itself.
var nowhere = struct {
	io.Reader
	io.Writer
}{nil, io.Discard}

// says prints text; a net.Pipe returns when the console has taken it.
func (g *guestLine) says(text string) { io.WriteString(g, text) }

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

func TestExpectFindsWhatCameBeforeAndAfterTheCall(t *testing.T) {
	g := newGuestLine(t)
	g.says("service_udp  1 socket\r\n")
	require.Equal(t, []string{"service_udp  1 socket", "1"}, expect(t, g.console, `^service_udp\s+(\d) socket$`))
	go g.says("service_tcp  4 sockets\r\n")
	require.Equal(t, []string{"service_tcp  4 sockets", "4"}, expect(t, g.console, `^service_tcp\s+(\d) sockets$`))
}

func TestExpectAssertsAnOrder(t *testing.T) {
	g := newGuestLine(t)
	g.says("one\ntwo\nthree\n")
	expect(t, g.console, "two")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	_, err := g.console.Expect(ctx, "one")
	require.ErrorContains(t, err, `expect "one": gave up`, "what precedes the last match does not count")
	expect(t, g.console, "three")
}

func TestAMatchWaitsForTheRestOfItsWord(t *testing.T) {
	g := newGuestLine(t)
	g.says("Connection from 192.0.")
	go g.says("2.2 (7)\n")
	require.Equal(t, "192.0.2.2", expect(t, g.console, `from (\S+)`)[1])
}

func TestAPromptIsFoundWithoutAnEndOfLine(t *testing.T) {
	g := newGuestLine(t)
	g.says("uart:~$ ")
	expect(t, g.console, `uart:~\$ `)
}

func TestAnOpenMatchIsTakenWhenTheGuestFallsSilent(t *testing.T) {
	g := newGuestLine(t)
	g.says("Password for root")
	require.Equal(t, "root", expect(t, g.console, `Password for (\w+)`)[1])
}

func TestAPatternSpansReads(t *testing.T) {
	g := newGuestLine(t)
	go func() {
		for _, b := range []byte("Single-threaded TCP/UDP echo server\n") {
			g.Write([]byte{b})
		}
	}()
	expect(t, g.console, "threaded TCP/UDP echo")
}

func TestAPatternIsFoundInALongLog(t *testing.T) {
	g := newGuestLine(t)
	go func() {
		line := strings.Repeat("noise ", 20) + "\n"
		for range 40000 { // 4.8 MB
			g.says(line)
		}
		g.says("needle 42\n")
	}()
	require.Equal(t, "42", expect(t, g.console, `needle (\d+)`)[1])
}

func TestABadPatternIsAnError(t *testing.T) {
	_, err := newConsole(nowhere, Options{}).Expect(t.Context(), "(")
	require.ErrorContains(t, err, "missing closing )")
}

func TestExpectEndsWithTheConsole(t *testing.T) {
	g := newGuestLine(t)
	g.says("bye")
	g.Close()
	_, err := g.console.Expect(within(t, 10*time.Second), "welcome")
	require.ErrorIs(t, err, ErrEnded)
	require.NotErrorIs(t, err, ErrGuest)
}

func TestFollowShowsEverythingFromTheFirstByteOn(t *testing.T) {
	g := newGuestLine(t)
	g.says("early\n")
	var seen syncBuffer
	done := make(chan error)
	go func() { done <- g.console.Follow(t.Context(), &seen) }()
	g.says("late")
	g.Close()
	require.NoError(t, <-done)
	require.Equal(t, "early\nlate", seen.String())
}

func TestAReaderThatIdlesDoesNotStallTheGuest(t *testing.T) {
	g := newGuestLine(t)
	never, stuck := io.Pipe()
	done := make(chan error)
	go func() { done <- g.console.Follow(t.Context(), stuck) }()
	for range 100 {
		g.says(strings.Repeat("x", 64<<10)) // would never return if Follow held the line
	}
	g.says("\nstill alive\n")
	expect(t, g.console, "still alive")
	never.Close()
	require.Error(t, <-done)
}

// A guest that is slow to echo gets no more before it has.
func TestTypingWaitsForTheEcho(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	typed := make(chan error, 1)
	text := bytes.Repeat([]byte("abcdefgh"), 8)
	go func() { typed <- c.Type(within(t, 10*time.Second), text) }()
	var got []byte
	for len(got) < len(text) {
		// However much we ask for, the guest gets a few bytes.
		buf := make([]byte, 4096)
		n, err := far.Read(buf)
		require.NoError(t, err)
		require.LessOrEqual(t, n, 32)
		got = append(got, buf[:n]...)
		require.Empty(t, typed, "it waits for this echo")
		c.append(buf[:n])
	}
	require.NoError(t, <-typed)
	require.Equal(t, text, got)
}

func TestTypingGoesOnWithoutAnEcho(t *testing.T) {
	g := newGuestLine(t)
	got := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 200)
		io.ReadFull(g, buf)
		got <- buf
	}()
	text := bytes.Repeat([]byte("x"), 200)
	require.NoError(t, g.console.Type(within(t, 10*time.Second), text))
	require.Equal(t, text, <-got)
}

func TestTypingIntoAConsoleThatEndedIsAnError(t *testing.T) {
	g := newGuestLine(t)
	g.Close()
	require.Error(t, g.console.Send(within(t, 10*time.Second), "hello"))
}

// The far end of a net.Pipe takes as much as it reads, as a UART does that
// hands on a byte when the guest has read the one before.
func TestTypingEndsWithItsContextWhereTheGuestReadsNothing(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		io.ReadFull(far, make([]byte, 7))
		cancel(enough)
	}()
	err := c.Type(ctx, []byte("first line\r"))
	require.ErrorIs(t, err, enough)
	require.EqualError(t, err, "type into the console: 7 of 11 bytes were sent: the guest's serial port takes no more: enough")

	got := make(chan string)
	go func() {
		buf := make([]byte, 64)
		n, _ := far.Read(buf)
		got <- string(buf[:n])
	}()
	require.NoError(t, c.Send(within(t, 10*time.Second), "second"))
	require.Equal(t, "second\r", <-got, "what was not sent of the first line never is")
}

func TestWhoeverWaitsToTypeEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	first, end := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}), make(chan error)
	go func() {
		far.Read(make([]byte, 1))
		close(begun)
	}()
	go func() { ended <- c.Type(first, []byte("first")) }()
	<-begun
	enough := errors.New("enough")
	second, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	require.ErrorIs(t, c.Type(second, []byte("second")), enough)
	end()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestFollowEndsWithItsContextWhereNobodyReads(t *testing.T) {
	g := newGuestLine(t)
	g.says("hello\n")
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- g.console.Follow(ctx, writer) }()
	reader.Read(make([]byte, 1)) // and no more: the rest of the write blocks
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	reader.Close() // ends the write that was left behind
}

func TestTailIsTheLastLines(t *testing.T) {
	c := newConsole(nowhere, Options{})
	require.Empty(t, c.Tail(2))
	c.append([]byte("one\ntwo\nthree\n"))
	require.Equal(t, []string{"two", "three"}, c.Tail(2))
	require.Equal(t, []string{"one", "two", "three"}, c.Tail(9))
}

func TestOnlyAMatchThatNothingCanChangeIsFinal(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{`ready`, "ready", true},
		{`port (\d+)`, "port 42", false},
		{`port (\d+)`, "port 42 ", true},
		{`port (\d+)`, "port 42\n", true},
		{`done$`, "done", false},
		{`done$`, "done\n", true},
		{`\bdone\b`, "done", false},
		{`\$ `, "uart:~$ ", true},
		{`(?:^|uart:~\$ )\$ `, "uart:~$ $ ", true},
		{`^service\s+1 socket`, "service   1 socket", true},
		{`a.*`, "abc", false},
		{`listen (.*)/`, "listen a/", false},
		{`line\n`, "line\n", true},
		{`state=([A-Z]+)`, "state=R", false},
		{`ver=(\d(?:\.\d)?)`, "ver=1", false},
		{`OK(AY)?`, "OK", false},
		{`OK(AY)?`, "OK\n", true},
		{`OKAY|OK`, "OK", false},
		{`OK|OKAY`, "OK", true},
		{`hello(?: world)?`, "hello", false},
		{`[xyz]{1,3}`, "xy", false},
		{`[xyz]{1,3}`, "xyz", true},
		{`x+?`, "x", true},
		{`ab+c|b`, "abb", false},
		{`addr ([0-9a-f]{4}(?::[0-9a-f]{4})*)`, "addr 2001", false},
		{`(?s)a.*b`, "a b\n", false},
		{`é+`, "é", false},
	} {
		p, err := compile(c.pattern)
		require.NoError(t, err)
		require.Equal(t, c.want, p.final([]byte(c.text)), "%s in %q", c.pattern, c.text)
	}
}

func TestAMatchIsTakenAsItIsWhenTheGuestNeverFallsSilent(t *testing.T) {
	g := newGuestLine(t)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				g.says("a b\n")
			}
		}
	}()
	expect(t, g.console, `(?s)a.*b`)
}

func TestExpectEndsWithItsContextAlsoWhileAnotherOneRuns(t *testing.T) {
	g := newGuestLine(t)
	first := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := g.console.Expect(ctx, "never said")
		first <- err
	}()
	for len(g.console.expecting) == 0 {
		runtime.Gosched()
	}
	gone, now := context.WithCancel(t.Context())
	now()
	_, err := g.console.Expect(gone, "anything")
	require.ErrorIs(t, err, context.Canceled)
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
}
