package integration

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
)

func TestNothingPassesALinkThatIsCut(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	ctx, cancel := context.WithTimeout(t.Context(), 4*harnesstest.Within)
	defer cancel()
	stream := m.Dial("tcp", echoPort)
	echoes(t, stream, "before")
	conn := m.Dial("udp", echoPort)
	echoes(t, conn, "before")

	m.SetLink(false)
	m.SetLink(false) // cutting a cut link is not an error
	require.False(t, answers(t, conn, "cut"))

	m.SetLink(true)
	for !answers(t, conn, "mended") {
		require.NoError(t, ctx.Err(), "no answer since the link was restored")
	}
	require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: "tcp"}))
	require.NoError(t, stream.SetDeadline(time.Now().Add(4*harnesstest.Within)))
	echoes(t, stream, "a connection from before survives")

	m.Shutdown()
	require.ErrorContains(t, m.Machine.SetLink(ctx, true), "set the link of "+target+": ")
}

// The guest waits for a carrier and Save waits for an echo. Both waits are bounded.
func TestAMachineWithoutALinkBootsAndIsSaved(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel, spec.From, spec.Dir = harness.TCG, harness.Cold, t.TempDir()
	m, err := harness.Start(t.Context(), spec)
	require.NoError(t, err)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), 10*harnesstest.Within)
	defer cancel()
	require.NoError(t, m.SetLink(ctx, false))
	require.NoError(t, m.WaitReady(ctx))
	template, err := m.Save(ctx, filepath.Join(t.TempDir(), "template"))
	require.NoError(t, err)
	spec.From, spec.Dir = template, ""
	again := restored(t, spec)
	for _, m := range []*harness.Machine{m, again.Machine} {
		conn, err := m.Dial(ctx, "udp", echoPort)
		require.NoError(t, err)
		defer conn.Close()
		require.False(t, answers(t, conn, "cut"))
		require.NoError(t, m.SetLink(ctx, true))
		for !answers(t, conn, "mended") {
			require.NoError(t, ctx.Err(), "no answer since the link was restored")
		}
	}
}

// answers sends a datagram and reports whether one comes back within half a second.
func answers(t *testing.T, conn net.Conn, text string) bool {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second/2)))
	_, err = conn.Read(make([]byte, 1500))
	if !os.IsTimeout(err) {
		require.NoError(t, err)
	}
	return err == nil
}
