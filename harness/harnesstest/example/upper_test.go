package example

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

func TestUpper(t *testing.T) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./cmd/upper")
		spec.Ports = []string{"udp/4242"}
		m := harnesstest.Boot(t, spec)

		conn := m.Dial("udp", 4242)
		_, err := conn.Write([]byte("hello"))
		require.NoError(t, err)
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		require.NoError(t, err)
		require.Equal(t, "HELLO", string(answer[:n]))

		m.Send("net sockets")
		m.Expect(`upper\s+1 socket`)
	})
}
