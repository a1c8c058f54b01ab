package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// onSockets returns a console on a pair of sockets, and the guest's end.
func onSockets(t *testing.T) (*Console, net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "line")
		ends[i], err = net.FileConn(f)
		require.NoError(t, err)
		f.Close()
	}
	c := New(ends[0], Options{})
	t.Cleanup(func() { ends[0].Close(); ends[1].Close(); <-c.Done() })
	return c, ends[1]
}

func TestCatchUpReadsWhatHasArrived(t *testing.T) {
	c, guest := onSockets(t)
	for i := range 100 {
		_, err := io.WriteString(guest, "hello\n")
		require.NoError(t, err)
		require.NoError(t, c.CatchUp())
		require.EqualValues(t, (i+1)*len("hello\n"), c.Len())
	}
	guest.Close()
	<-c.Done()
	require.NoError(t, c.CatchUp(), "a line that has ended holds no byte")
}

func TestCatchUpRefusesALineWithoutADescriptor(t *testing.T) {
	g := newGuestLine(t)
	err := g.console.CatchUp()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.EqualError(t, err, "catch up with the console: a *net.pipe has no descriptor with read deadlines: unsupported operation")
	g.print("hello\n")
	expect(t, g.console, "^hello$")
}

// openPTY opens a pseudoterminal, whose terminal driver echoes, and its guest's side.
func openPTY(t *testing.T) (line, guest *os.File) {
	line, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { line.Close() })
	raw, err := line.SyscallConn()
	require.NoError(t, err)
	var number int
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	}))
	require.NoError(t, err)
	guest, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { guest.Close() })
	return line, guest
}

func TestAPseudoterminalIsALine(t *testing.T) {
	line, guest := openPTY(t)
	c := New(line, Options{})
	go func() {
		fmt.Fprint(guest, "$ ")
		for typed := bufio.NewScanner(guest); typed.Scan(); {
			fmt.Fprintf(guest, "you said: %s\n$ ", typed.Text())
		}
	}()
	expect(t, c, `^\$ $`)
	send(t, c, "hello")
	require.Equal(t, "you said: hello", expect(t, c, ".*hello$")[0])
	expect(t, c, `^\$ $`)
	require.Equal(t, "$ hello\nyou said: hello\n$ ", c.Text(), "the terminal has echoed")

	_, err := io.WriteString(guest, "last words")
	require.NoError(t, err)
	require.NoError(t, c.CatchUp())
	require.Contains(t, c.Text(), "last words")
	require.NoError(t, c.Type(within(t, 10*time.Second), []byte{4})) // Ctrl-D ends the guest's input
	guest.Close()
	<-c.Done()
}

// A pair of io.Pipes has neither deadlines nor a descriptor.
func TestAnyReaderAndWriterIsALine(t *testing.T) {
	fromGuest, guestOut := io.Pipe()
	hears, toGuest := io.Pipe()
	c := New(struct {
		io.Reader
		io.Writer
	}{fromGuest, toGuest}, Options{})
	go io.WriteString(guestOut, "$ ")
	expect(t, c, `^\$ $`)
	heard := make(chan string, 1)
	go func() {
		buf := make([]byte, 64)
		n, _ := hears.Read(buf)
		heard <- string(buf[:n])
	}()
	send(t, c, "hello")
	require.Equal(t, "hello\r", <-heard)
	guestOut.Close()
	<-c.Done()
	_, err := c.Expect(t.Context(), "more")
	require.ErrorIs(t, err, ErrEnded)
}

func TestABufferedRecordIsFlushedWhenTheLineEnds(t *testing.T) {
	var record syncBuffer
	near, far := net.Pipe()
	c := New(near, Options{Record: bufio.NewWriter(&record)})
	io.WriteString(far, "last words")
	far.Close()
	<-c.Done()
	require.Equal(t, "last words", record.String())
}

func TestWaitByteEndsWithItsContextAndWithTheConsole(t *testing.T) {
	g := newGuestLine(t)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	require.Equal(t, enough, g.console.WaitByte(ctx))
	g.Close()
	require.Equal(t, ErrEnded, g.console.WaitByte(t.Context()))
}

func TestWaitForDoesNotMoveExpect(t *testing.T) {
	g := newGuestLine(t)
	g.print("one\ntwo\nthree\n")
	match, end, err := g.console.WaitFor(within(t, 10*time.Second), `t(w)o\n`, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"two\n", "w"}, match)
	require.EqualValues(t, len("one\ntwo\n"), end)
	_, end, err = g.console.WaitFor(within(t, 10*time.Second), `t`, end)
	require.NoError(t, err)
	require.EqualValues(t, len("one\ntwo\nt"), end)
	expect(t, g.console, "one")
}

func TestNobodyTypesWhileTypingIsHeld(t *testing.T) {
	c := newConsole(nowhere, Options{})
	release, err := c.HoldTyping(t.Context())
	require.NoError(t, err)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	require.ErrorIs(t, c.Send(ctx, "hello"), enough)
	_, err = c.HoldTyping(ctx)
	require.ErrorIs(t, err, enough)
	release()
	require.NoError(t, c.Send(t.Context(), "hello"))
}

func TestExpectWaitsForTheTraceOfACrash(t *testing.T) {
	const trace = "main.main()\n"
	crash := func(c *Console) (lines *atomic.Int32) {
		lines = new(atomic.Int32)
		c.append([]byte("panic: boom\n\ngoroutine 1 [running]:\n" + trace))
		go func() {
			for range 3 {
				time.Sleep(settle / 2)
				c.append([]byte(trace))
				lines.Add(1)
			}
		}()
		return lines
	}
	t.Run("until the guest is silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newConsole(nowhere, Options{})
			lines, start := crash(c), time.Now()
			_, err := c.Expect(t.Context(), "ready")
			require.ErrorIs(t, err, ErrGuest)
			require.EqualValues(t, 3, lines.Load())
			require.Equal(t, 3*settle/2+settle, time.Since(start))
		})
	})
	t.Run("until the caller closes CrashComplete", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			complete := make(chan struct{})
			c := newConsole(nowhere, Options{CrashComplete: complete})
			crash(c)
			start := time.Now()
			time.AfterFunc(time.Minute, func() { close(complete) })
			_, err := c.Expect(t.Context(), "ready")
			require.ErrorIs(t, err, ErrGuest)
			require.Equal(t, time.Minute, time.Since(start))
		})
	})
	t.Run("for at most 2 s", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newConsole(nowhere, Options{})
			crash(c)
			go func() {
				for range 3 * traceWithin / settle {
					c.append([]byte("more\n"))
					time.Sleep(settle / 2)
				}
			}()
			start := time.Now()
			_, err := c.Expect(t.Context(), "ready")
			require.ErrorIs(t, err, ErrGuest)
			require.Equal(t, traceWithin, time.Since(start))
			time.Sleep(traceWithin) // the guest falls silent
		})
	})
}
