package integration

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

// libslirp 4.7 aborts QEMU if a client resets its connection while libslirp's buffer for the guest is full.
// A close of Machine.Dial's connection does not reset it then.
func TestAClientMayCloseBeforeTheGuestHasTakenItsBytes(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	for range 10 {
		conn := m.Dial("tcp", echoPort)
		var err error
		for block := make([]byte, 64<<10); err == nil; {
			require.NoError(t, conn.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
			_, err = conn.Write(block)
		}
		require.NoError(t, conn.Close())
	}
	for range 10 { // the service has read to the end of each stream
		m.Expect(`Connection from ::ffff:192\.0\.2\.2 closed`)
	}
	m.Shutdown()
}

// A guest that ignores the end of its client's stream and goes on writing learns that the client has gone,
// however much the client has sent.
func TestAGuestLearnsThatItsClientHasGone(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/lost")
	spec.Ports = []string{"tcp/4242"}
	m := harnesstest.Boot(t, spec)
	require.Equal(t, "set up", m.Event())
	for _, size := range []int{1, 4 << 20} {
		conn := m.Dial("tcp", echoPort)
		_, err := conn.Write(bytes.Repeat([]byte{1}, size))
		require.NoError(t, err)
		_, err = io.CopyN(io.Discard, conn, 1<<20)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Equal(t, "the client has gone", m.Event(), size)
	}
}
