package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

func TestExpectSkipsTheEchoOfSend(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	m.Send("sh nosuchprogram all-good")
	m.Expect(`not found`)
	m.Expect(`uart:~\$ $`)
	m.Send("sh nosuchprogram all-good")
	ctx, cancel := m.Machine.Within(t.Context(), 3*time.Second)
	defer cancel()
	match, err := m.Console().Expect(ctx, "all-good")
	require.Error(t, err, "%q", match)
	require.ErrorContains(t, err, `the pattern matches in the line "sh nosuchprogram all-good", but that is only the echo of what Send typed`)
	m.Expect(`not found`)
}

// The guest logs every client that connects, even in the middle of an echo.
func TestExpectSkipsTheEchoOfSendAmongLogLines(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := m.Machine.Dial(t.Context(), "tcp", echoPort)
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(harnesstest.Within))
			conn.Write([]byte("x"))
			conn.Read(make([]byte, 1))
			conn.Close()
		}
	}()
	defer func() { close(stop); <-stopped }()
	for i := range 30 {
		m.Send(fmt.Sprintf("sh nosuchprogram all-good-%d and some more words that make the line long", i))
		require.Equal(t, "not found", m.Expect(`all-good|some more words|not found`)[0])
	}
}

func TestPatternsMatchWhatATerminalWouldShow(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	m.Send(`sh printf '\033[31mred\033[0m\r\n10%%\r50%%\r100%%\nend\n'`)
	m.Expect(`^red$`)
	m.Expect(`^50%$`)
	m.Expect(`^100%$`)
	for range 10 {
		m.Expect(`uart:~\$ $`)
		m.Send(`sh printf 'temp: 20\xc2'; printf '\xb0C\n'`)
		require.Equal(t, "°", m.Expect(`^temp: \d+(.)`)[1])
	}
}
