package harness

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/testconsole"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/wire"
)

func TestEventReturnsTheEventsInOrder(t *testing.T) {
	near, far := net.Pipe()
	c, guest := agent.New(near, io.Discard, nil), wire.NewGuest(far)
	go c.Listen()
	t.Cleanup(func() { far.Close() })
	_, err := guest.Send(wire.Message{Type: wire.Hello, Payload: make([]byte, 16)})
	require.NoError(t, err)
	line, _ := testconsole.New(t)
	m := &Machine{plan: &plan{}, vm: &vm.VM{Agent: c, Console: line, Drained: make(chan struct{})}}
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gone"))
	require.NoError(t, c.AwaitHello(t.Context()))
	_, err = m.Event(gone)
	require.EqualError(t, err, "event of : the guest has sent none: gone")

	first := make(chan string, 1)
	go func() {
		text, _ := m.Event(t.Context())
		first <- text
	}()
	for _, text := range []string{"one", "two"} {
		_, err = guest.Send(wire.Message{Type: wire.Event, Payload: []byte(text)})
		require.NoError(t, err)
	}
	_, err = guest.Send(wire.Message{Type: wire.PowerOff, Payload: []byte("tired")})
	require.NoError(t, err)
	require.Equal(t, "one", <-first)
	far.Close()
	<-c.Done()
	close(m.vm.Drained)
	text, err := m.Event(t.Context())
	require.NoError(t, err, "the guest sent the event before the line ended")
	require.Equal(t, "two", text)
	_, err = m.Event(t.Context())
	require.EqualError(t, err, "event of : the guest's agent: the line has ended")
	require.Equal(t, "tired", c.PowerOffReason())
}
