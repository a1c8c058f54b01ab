package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/qmp/qmptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, log *bytes.Buffer, onEvent func(Event)) (*Client, *qmptest.Fake) {
	fake, conn := qmptest.New()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := New(ctx, conn, log, onEvent)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); fake.Close() })
	return c, fake
}

// reply answers the next command, if its name is want.
func reply(t *testing.T, fake *qmptest.Fake, want string, answer func(id uint64) string) {
	go func() {
		id, command, err := fake.Receive()
		if err == nil && command == want {
			fake.Send(answer(id))
		}
	}()
}

func TestACommandsResultIsDecoded(t *testing.T) {
	var log bytes.Buffer
	c, fake := connect(t, &log, nil)
	reply(t, fake, "query-status", func(id uint64) string {
		return `{"return": {"status": "running"}, "id": ` + itoa(id) + `}`
	})
	var got struct{ Status string }
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, &got))
	require.Equal(t, "running", got.Status)
	require.Contains(t, log.String(), `> {"execute":"query-status"`, "the log shows the command")
	require.Contains(t, log.String(), `< {"return": {"status": "running"}`, "the log shows the answer")
}

func TestARefusedCommandIsAnError(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	reply(t, fake, "nonsense", func(id uint64) string {
		return `{"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}, "id": ` + itoa(id) + `}`
	})
	err := c.Execute(t.Context(), "nonsense", nil, nil)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "CommandNotFound", refused.Class)
	require.EqualError(t, err, "qmp nonsense: The command nonsense has not been found (CommandNotFound)")
}

func TestAllCommandsAreSentBeforeTheFirstAnswer(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() {
		var ids []uint64
		for range 3 {
			id, _, _ := fake.Receive()
			ids = append(ids, id)
		}
		fake.Send(`{"return": "one", "id": ` + itoa(ids[0]) + `}`)
		fake.Send(`{"error": {"class": "GenericError", "desc": "No"}, "id": ` + itoa(ids[1]) + `}`)
		fake.Send(`{"return": "three", "id": ` + itoa(ids[2]) + `}`)
	}()
	var one, two, three string
	err := c.ExecuteAll(t.Context(), Command{Name: "a", Result: &one}, Command{Name: "b", Result: &two}, Command{Name: "c", Result: &three})
	require.EqualError(t, err, "qmp b: No (GenericError)")
	require.Equal(t, []string{"one", "", "three"}, []string{one, two, three})
}

func TestExecuteAfterSendsAllButTheLastByteFirst(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	const most = `{"execute":"a","id":2`
	begun := make(chan string)
	go func() {
		text := make([]byte, len(most))
		io.ReadFull(fake.Lines, text)
		begun <- string(text)
		end, _ := fake.Lines.ReadString('\n')
		fake.Send(`{"return": "after ` + strings.TrimSpace(end) + `", "id": 2}`)
	}()
	var result string
	err := c.ExecuteAfter(t.Context(), func() error {
		require.Equal(t, most, <-begun)
		return nil
	}, Command{Name: "a", Result: &result})
	require.NoError(t, err)
	require.Equal(t, "after }", result)
}

func TestExecuteAfterClosesTheConnectionIfAfterFails(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	rest := make(chan string)
	go func() {
		text, _ := io.ReadAll(fake.Lines)
		rest <- string(text)
	}()
	never := errors.New("never")
	require.Equal(t, never, c.ExecuteAfter(t.Context(), func() error { return never }, Command{Name: "a"}))
	require.Equal(t, `{"execute":"a","id":2`, <-rest)
	require.ErrorIs(t, c.Execute(t.Context(), "b", nil, nil), ErrClosed)
}

func TestEventsArriveInOrderBetweenAnswers(t *testing.T) {
	events := make(chan string, 3)
	_, fake := connect(t, new(bytes.Buffer), func(e Event) { events <- e.Name + string(e.Data) })
	fake.Send(`{"event": "STOP"}`)
	fake.Send(`{"event": "SHUTDOWN", "data": {"guest":true}}`)
	require.Equal(t, "STOP", <-events)
	require.Equal(t, `SHUTDOWN{"guest":true}`, <-events)
}

func TestAnAnswerThatNeverComesEndsWithTheContext(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	heard := make(chan uint64)
	go func() {
		id, _, _ := fake.Receive()
		heard <- id
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-heard; cancel() }()
	require.ErrorIs(t, c.Execute(ctx, "stop", nil, nil), context.Canceled)
}

func TestALateAnswerIsNotTakenForTheNextOne(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan uint64)
	go func() {
		id, _, _ := fake.Receive()
		cancel()
		first <- id
	}()
	require.ErrorIs(t, c.Execute(ctx, "slow", nil, nil), context.Canceled)
	late := <-first
	go func() {
		id, _, _ := fake.Receive()
		fake.Send(`{"return": "late", "id": ` + itoa(late) + `}`)
		fake.Send(`{"return": "right", "id": ` + itoa(id) + `}`)
	}()
	var got string
	require.NoError(t, c.Execute(t.Context(), "quick", nil, &got))
	require.Equal(t, "right", got)
}

func TestWaitingForAnotherCommandEndsWithTheContext(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	first := make(chan error)
	go func() { first <- c.Execute(t.Context(), "slow", nil, nil) }()
	id, _, err := fake.Receive()
	require.NoError(t, err)
	for _, execute := range []func(context.Context) error{
		func(ctx context.Context) error { return c.Execute(ctx, "quick", nil, nil) },
		func(ctx context.Context) error { return c.ExecuteAll(ctx, Command{Name: "quick"}) },
		func(ctx context.Context) error {
			return c.ExecuteAfter(ctx, func() error { return errors.New("its turn has not come") }, Command{Name: "quick"})
		},
		func(ctx context.Context) error { return c.Give(ctx, "name", nil) },
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(errEnough) })
		require.ErrorIs(t, execute(ctx), errEnough)
	}
	fake.Send(`{"return": {}, "id": ` + itoa(id) + `}`)
	require.NoError(t, <-first)
}

var errEnough = errors.New("enough")

// A net.Pipe has no buffer: a write returns when the other end has read it.
func TestACommandThatIsNotReadEndsWithTheContext(t *testing.T) {
	for name, read := range map[string]int{"QEMU reads nothing": 0, "QEMU reads half": 10} {
		t.Run(name, func(t *testing.T) {
			c, fake := connect(t, new(bytes.Buffer), nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			begun := make([]byte, read)
			go func() {
				io.ReadFull(fake.Conn, begun)
				cancel(errEnough)
			}()
			err := c.Execute(ctx, "first", nil, nil)
			require.ErrorIs(t, err, errEnough)
			if read > 0 {
				require.EqualError(t, err, "qmp first: QEMU does not read its commands: enough")
			}

			// The first command is completed if QEMU has read a part of it, and its answer is
			// dropped. The second command follows.
			second := make(chan error)
			var result string
			go func() { second <- c.Execute(t.Context(), "second", nil, &result) }()
			if read > 0 {
				rest, err := fake.Lines.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, `{"execute":"first","id":2}`+"\n", string(begun)+rest)
				fake.Send(`{"return": "first", "id": 2}`)
			}
			id, command, err := fake.Receive()
			require.NoError(t, err)
			require.Equal(t, "second", command)
			fake.Send(`{"return": "second", "id": ` + itoa(id) + `}`)
			require.NoError(t, <-second)
			require.Equal(t, "second", result)
		})
	}
}

func TestExecuteAfterEndsWithTheContextWhileQEMUDoesNotRead(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		fake.Conn.Read(make([]byte, 1))
		cancel(errEnough)
	}()
	err := c.ExecuteAfter(ctx, func() error { return errors.New("QEMU has not read it") }, Command{Name: "first"})
	require.ErrorIs(t, err, errEnough)
	<-c.Done()
	require.ErrorIs(t, c.Execute(t.Context(), "second", nil, nil), ErrClosed, "the first command is incomplete")
}

// The client and QEMU share a socket pair whose buffer is full. The next command and a file wait for
// room until their contexts end. When QEMU reads again, every line is complete.
func TestCallsEndWhileTheSocketIsFullAndNoByteIsLost(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "monitor")
		ends[i], err = net.FileConn(f)
		require.NoError(t, err)
		f.Close()
	}
	fake := &qmptest.Fake{Conn: ends[1], Lines: bufio.NewReader(ends[1])}
	fake.Greet()
	c, err := New(t.Context(), ends[0], nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); fake.Close() })

	short := func() context.Context {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errEnough)
		t.Cleanup(cancel)
		return ctx
	}
	long := strings.Repeat("x", 1<<20) // more than a socket holds
	begun, enough := context.WithCancelCause(t.Context())
	first := make(chan error)
	go func() { first <- c.Execute(begun, "first", map[string]string{"text": long}, nil) }()
	raw, err := ends[1].(*net.UnixConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Read(func(fd uintptr) bool { // until part of the line is there
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n > 0 || err != unix.EAGAIN
	}))
	enough(errEnough)
	err = <-first
	require.ErrorIs(t, err, errEnough)
	require.ErrorContains(t, err, "QEMU does not read its commands")
	require.ErrorIs(t, c.Execute(short(), "never", nil, nil), errEnough)
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	require.ErrorIs(t, c.Give(short(), "name", file), errEnough)

	last := make(chan error)
	go func() { last <- c.Give(t.Context(), "name", file) }()
	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != "getfd" {
		id, command, err := fake.Receive()
		require.NoError(t, err, "every line is JSON")
		heard = append(heard, command)
		fake.Send(`{"return": {}, "id": ` + itoa(id) + `}`)
	}
	require.Equal(t, []string{"first", "getfd"}, heard)
	require.NoError(t, <-last)
}

func TestTheEndOfQEMUEndsEveryCommand(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() { fake.Receive(); fake.Close() }()
	require.ErrorIs(t, c.Execute(t.Context(), "quit", nil, nil), ErrClosed)
	<-c.Done()
	require.ErrorIs(t, c.Execute(t.Context(), "stop", nil, nil), ErrClosed)
}

func TestALineThatIsNoJSONIsQuoted(t *testing.T) {
	c, fake := connect(t, new(bytes.Buffer), nil)
	go func() { fake.Receive(); fake.Send("qemu: out of cheese") }()
	require.ErrorContains(t, c.Execute(t.Context(), "stop", nil, nil), `"qemu: out of cheese" is no QMP`)
}

func TestAConnectionThatEndsBeforeTheGreetingIsAnError(t *testing.T) {
	_, conn := qmptest.New()
	conn.Close()
	_, err := New(t.Context(), conn, nil, nil)
	require.ErrorContains(t, err, "qmp greeting")
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// A guest may have taken over QEMU.
func TestAHostileQEMUEndsItsConnectionAndDoesNotPanicTheClient(t *testing.T) {
	greeting := `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}` + "\n"
	for name, text := range map[string]string{
		"a second greeting":         greeting,
		"a line without an end":     strings.Repeat("x", longestLine+1),
		"an answer with a wrong ID": `{"return": {}, "id": "nobody"}` + "\n" + `nonsense` + "\n",
		"an answer without an ID":   `{"return": {}}` + "\n" + `nonsense` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go func() {
				io.WriteString(far, greeting)
				lines := bufio.NewReader(far)
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				var command struct{ ID any }
				json.Unmarshal([]byte(line), &command)
				id, _ := json.Marshal(command.ID)
				fmt.Fprintf(far, `{"return": {}, "id": %s}`+"\n", id)
				go io.Copy(io.Discard, lines)
				io.WriteString(far, text)
			}()
			c, err := New(t.Context(), near, io.Discard, nil)
			if err == nil {
				<-c.Done()
				err = c.Execute(t.Context(), "query-status", nil, nil)
			}
			require.Error(t, err)
		})
	}
}
