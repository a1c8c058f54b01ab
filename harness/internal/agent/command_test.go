package agent

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// startPiped starts a command with all streams piped, and returns the number of its request.
func startPiped(t *testing.T, c *Client, guest *wire.Conn) (*Command, uint32) {
	t.Helper()
	number := make(chan uint32, 1)
	go func() {
		m, err := guest.Receive()
		if err == nil {
			number <- m.Sequence
		}
		close(number)
	}()
	command, err := c.Start(t.Context(), wire.Command{Args: []string{"cat"}, Piped: [wire.Streams]bool{true, true, true}})
	require.NoError(t, err)
	return command, <-number
}

func about(n uint32, kind wire.Type, payload []byte) wire.Message {
	return wire.Message{Type: kind, Answers: n, Payload: payload}
}

func TestACommandsOutputArrivesBeforeItsStreamsEnd(t *testing.T) {
	c, _, guest := newPair(t)
	command, n := startPiped(t, c, guest)
	go func() {
		for _, m := range []wire.Message{
			about(n, wire.Started, nil),
			about(n, wire.Data, []byte("\x01out")),
			about(n, wire.Data, []byte("\x02error")),
			about(n, wire.Exited, wire.Exit{Status: 3}.Encode()),
			about(n, wire.Data, []byte("\x01put")),
			about(n, wire.Close, wire.EncodeStream(wire.Stdout)),
			about(n, wire.Close, wire.EncodeStream(wire.Stderr)),
		} {
			guest.Send(m)
		}
	}()
	<-command.Answered()
	require.Nil(t, command.Refusal())
	<-command.Finished()
	require.Equal(t, 3, command.Exit().Status)
	for s, want := range map[wire.Stream]string{wire.Stdout: "output", wire.Stderr: "error"} {
		got, err := io.ReadAll(reader{command, s})
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.NoError(t, c.noCommands())
	_, err := command.Write(t.Context(), []byte("x"))
	require.ErrorIs(t, err, ErrStdinClosed)
}

type reader struct {
	*Command
	stream wire.Stream
}

func (r reader) Read(p []byte) (int, error) { return r.Command.Read(r.stream, p) }

// A guest that breaks the protocol loses its line. It must not crash the host's process, nor take more of
// its memory than the windows of the streams.
func TestAGuestThatBreaksTheProtocolOfACommandLosesItsLine(t *testing.T) {
	full := append([]byte{byte(wire.Stdout)}, make([]byte, wire.MaxData)...)
	exited := wire.Exit{}.Encode()
	for says, breaks := range map[string][]wire.Message{
		"a command has ended that does not run": {{Type: wire.Exited, Payload: exited}},
		"a command was started twice":           {{Type: wire.Started}, {Type: wire.Started}},
		"data of a command's stdin":             {{Type: wire.Data, Payload: []byte("\x00x")}},
		"4 bytes for no stream of a command":    {{Type: wire.Data, Payload: []byte("\x03xyz")}},
		"data after the end of a stream": {{Type: wire.Close, Payload: wire.EncodeStream(wire.Stdout)},
			{Type: wire.Data, Payload: []byte("\x01x")}},
		"credit of 1 bytes: the window is 262144, and 262144 are left": {{Type: wire.Credit, Payload: wire.EncodeCredit(wire.Stdin, 1)}},
		"credit of a command's stdout":                                 {{Type: wire.Credit, Payload: wire.EncodeCredit(wire.Stdout, 1)}},
		"bytes of a stream whose window has": {{Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full},
			{Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full},
			{Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full}, {Type: wire.Data, Payload: full}},
	} {
		t.Run(says, func(t *testing.T) {
			c, _, guest := newPair(t)
			command, n := startPiped(t, c, guest)
			for _, m := range breaks {
				m.Answers = n
				guest.Send(m)
			}
			<-c.Done()
			require.ErrorContains(t, c.Err(), says)
			_, err := command.Write(t.Context(), make([]byte, wire.Window+1))
			require.Error(t, err)
			for _, s := range []wire.Stream{wire.Stdout, wire.Stderr} {
				_, err = io.ReadAll(reader{command, s})
				if err != nil { // of a stream that had not ended
					require.ErrorContains(t, err, says)
				}
			}
		})
	}
}

// The sender stops when the window is full, and goes on with the receiver's credit.
func TestAWriteWaitsForTheGuestsCreditAndEndsWithItsContext(t *testing.T) {
	c, _, guest := newPair(t)
	command, n := startPiped(t, c, guest)
	received := make(chan []byte)
	go func() {
		var all []byte
		for len(all) < wire.Window+5 {
			m, err := guest.Receive()
			if err != nil || m.Type != wire.Data || m.Answers != n {
				break
			}
			all = append(all, m.Payload[1:]...)
			if len(all) == wire.Window {
				guest.Send(about(n, wire.Credit, wire.EncodeCredit(wire.Stdin, 5)))
			}
		}
		received <- all
	}()
	data := make([]byte, wire.Window+6)
	for i := range data {
		data[i] = byte(i / 251)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		got := <-received
		cancel()
		received <- got
	}()
	written, err := command.Write(ctx, data)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, wire.Window+5, written)
	require.True(t, bytes.Equal(data[:wire.Window+5], <-received))
}

// A request that gets no answer does not hold up commands.
func TestACommandStartsWhileARequestWaits(t *testing.T) {
	c, _, guest := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.Stats(ctx)
	}()
	m, err := guest.Receive()
	require.NoError(t, err)
	require.Equal(t, wire.Statistics, m.Type)
	command, n := startPiped(t, c, guest)
	go guest.Send(about(n, wire.Started, nil))
	select {
	case <-command.Answered():
	case <-time.After(time.Minute):
		t.Error("no answer")
	}
	cancel()
	<-asked
}

// The agent's client numbers the messages of each conversation from 0. A command or a call that is not sent has
// no number.
func TestTheEndOfOneCommandLeavesAnotherOneOfItsNumber(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, end := range map[string]func(c *Client, guest *wire.Conn) *Command{
		"not sent": func(c *Client, guest *wire.Conn) *Command {
			command, n := startPiped(t, c, guest)
			require.Zero(t, n)
			_, err := c.Start(ended, wire.Command{Args: []string{"cat"}})
			require.ErrorIs(t, err, context.Canceled)
			return command
		},
		"of an earlier conversation": func(c *Client, guest *wire.Conn) *Command {
			old, n := startPiped(t, c, guest)
			_, err := guest.Send(about(n, wire.Refused, wire.Refusal{Status: 127}.Encode()))
			require.NoError(t, err)
			<-old.Finished()
			c.wire.Open(1)
			guest.Open(1)
			command, again := startPiped(t, c, guest)
			require.Equal(t, n, again)
			old.Release()
			return command
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, guest := newPair(t)
			command := end(c, guest)
			_, err := guest.Send(about(0, wire.Started, nil))
			require.NoError(t, err)
			select {
			case <-command.Answered():
			case <-time.After(time.Minute):
				t.Fatal("the client has forgotten the command")
			}
		})
	}
}
