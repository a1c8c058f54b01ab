package lan_test

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan"
	"guesthouse.example/harness/lan/internal/netstack"
)

// The payload that arrives is compared byte by byte: a bad link may slow a stream down, and must not change it.
func TestTCPSurvivesABadLink(t *testing.T) {
	var captured bytes.Buffer
	l := newLan(t, lan.Config{Seed: 5})
	line, err := l.Join("server")
	require.NoError(t, err)
	g := connect(t, line, &captured)
	echoTCP(t, g)
	require.NoError(t, l.Link("server").SetFaults(lan.Both, lan.Faults{
		Loss: 0.05, Duplicate: 0.1, Reorder: 0.1, ReorderFrames: 3, BitFlip: 0.02, Truncate: 0.02, Delay: time.Millisecond, Jitter: time.Millisecond,
	}))
	c, err := l.Dial(within(t), "tcp", "server:4242")
	require.NoError(t, err)
	sent := make([]byte, 200<<10)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	go func() {
		c.Write(sent)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(2*time.Minute)))
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	s := l.Link("server").Stats(lan.Down)
	require.NotZero(t, s.Lost)
	require.NotZero(t, s.Duplicated)
	require.NotZero(t, s.Reordered)
	require.NotZero(t, s.Damaged)
	require.NoError(t, line.Close(nil))
	require.Contains(t, captured.String(), "duplicated")
	require.Contains(t, captured.String(), "seed 5")
}

func TestAPartitionHeals(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	echoUDP(t, b)
	ask := func(from *netstack.Stack, to netip.Addr) error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := from.Ping(ctx, to)
		return err
	}
	_, err := a.Ping(within(t), b.addr())
	require.NoError(t, err)
	l.Partition([]string{"a"}, []string{"b", "nobody"})
	require.ErrorIs(t, ask(a.Stack, b.addr()), context.DeadlineExceeded)
	_, err = l.Ping(within(t), "a")
	require.NoError(t, err)
	_, err = l.Ping(within(t), "b")
	require.NoError(t, err)
	l.Heal()
	_, err = a.Ping(within(t), b.addr())
	require.NoError(t, err)

	l.Link("b").Cut()
	require.ErrorIs(t, ask(a.Stack, b.addr()), context.DeadlineExceeded)
	l.Link("b").Mend()
	_, err = a.Ping(within(t), b.addr())
	require.NoError(t, err)
}

func TestTheFaultsOfTheConfigAreThoseOfEachMachine(t *testing.T) {
	l := newLan(t, lan.Config{Faults: lan.Faults{Delay: time.Millisecond}})
	require.Equal(t, time.Millisecond, l.Link("a").Faults(lan.Down).Delay)
	require.NoError(t, l.Link("a").SetFaults(lan.Down, lan.Faults{Loss: 1}))
	join(t, l, "a")
	require.Equal(t, lan.Faults{Loss: 1}, l.Link("a").Faults(lan.Down))
	require.Equal(t, lan.Faults{Delay: time.Millisecond}, l.Link("a").Faults(lan.Up))
	require.Equal(t, lan.Faults{}, l.Link(lan.HostName).Faults(lan.Up))
}
