package agent

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// newAgent returns an agent between a harness and a program, outside any machine.
func newAgent(t *testing.T) (a *Agent, harness, program *wire.Conn) {
	t.Helper()
	near, far := net.Pipe()
	a = &Agent{harness: wire.NewGuest(near)}
	a.loud = sync.NewCond(&a.mu)
	var err error
	a.program, err = newProgram()
	require.NoError(t, err)
	go a.listen()
	end := socket(a.program.far.Fd())
	t.Cleanup(func() {
		a.program.far.Close()
		near.Close()
		far.Close()
		<-a.program.ended
	})
	return a, wire.NewHarness(far), wire.NewGuest(end)
}

// receive returns the next message.
func receive(t *testing.T, conn *wire.Conn) wire.Message {
	t.Helper()
	m, err := conn.Receive()
	require.NoError(t, err)
	return m
}

func send(t *testing.T, conn *wire.Conn, m wire.Message) {
	t.Helper()
	_, err := conn.Send(m)
	require.NoError(t, err)
}

// If the program sends a message that only init may send, the agent closes the program's line.
func TestAProgramCannotForgeItsEnd(t *testing.T) {
	for _, forged := range []wire.Message{
		{Type: wire.Ended, Payload: wire.Exit{}.Encode()},
		{Type: wire.Exited, Payload: wire.Exit{}.Encode()},
		{Type: wire.Restored, Payload: wire.Reseeded{}.Encode()},
		{Type: wire.Failed},
	} {
		a, harness, program := newAgent(t)
		send(t, program, wire.Message{Type: wire.Hello})
		send(t, program, forged)
		require.Equal(t, "the program's line to the agent: unexpected message "+forged.Type.String(), string(receive(t, harness).Payload))
		_, err := program.Receive()
		require.Error(t, err, "the agent has closed the line")
		go a.Ended(wire.Exit{Status: 3})
		m := receive(t, harness)
		require.Equal(t, wire.Ended, m.Type)
		exit, err := wire.DecodeExit(m.Payload)
		require.NoError(t, err)
		require.Equal(t, 3, exit.Status)
	}
}

func TestAProgramsMessagesArriveBeforeItsEnd(t *testing.T) {
	a, harness, program := newAgent(t)
	send(t, program, wire.Message{Type: wire.Hello})
	for range 20 {
		send(t, program, wire.Message{Type: wire.Event, Payload: []byte("event")})
	}
	a.program.mu.Lock()
	a.program.connected = true // even if the hello is not received yet
	a.program.mu.Unlock()
	a.program.far.Close()
	go a.Ended(wire.Exit{})
	for range 20 {
		require.Equal(t, wire.Event, receive(t, harness).Type)
	}
	require.Equal(t, wire.Ended, receive(t, harness).Type)
}

// A program that hangs or never reads holds up neither the agent nor the harness.
func TestAProgramThatDoesNotReadLosesItsLine(t *testing.T) {
	a, harness, program := newAgent(t)
	send(t, program, wire.Message{Type: wire.Hello})
	send(t, program, wire.Message{Type: wire.Event, Payload: []byte("after hello")})
	require.Equal(t, wire.Event, receive(t, harness).Type)
	begun := time.Now()
	for i := 0; a.program.ask(wire.Message{Type: wire.Statistics, Sequence: uint32(i)}); i++ {
		require.Less(t, time.Since(begun), time.Minute)
	}
	a.program.quiesce() // does not wait
	require.False(t, a.program.ask(wire.Message{Type: wire.Statistics}))
}

func TestMessagesWaitWhileTheAgentIsQuiet(t *testing.T) {
	a, harness, program := newAgent(t)
	quiet := make(chan error, 1)
	go func() { quiet <- a.reply(wire.Message{Type: wire.Quiesce}, nil) }()
	require.Equal(t, wire.Quiesce, receive(t, harness).Type)
	require.NoError(t, <-quiet)
	send(t, program, wire.Message{Type: wire.Hello})
	send(t, program, wire.Message{Type: wire.Event, Payload: []byte("kept")})
	go func() { quiet <- a.reply(wire.Message{Type: wire.Restored}, nil) }()
	require.Equal(t, wire.Restored, receive(t, harness).Type)
	require.Equal(t, "kept", string(receive(t, harness).Payload))
	require.NoError(t, <-quiet)
}
