package contexts

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/host/traffic"
)

const (
	silent = "the server sends nothing"
	full   = "the server reads nothing"
	noDial = "the dial does not return"
)

// A server is the peer of a call, on a network.
type server struct {
	network string
	dial    traffic.DialFunc
}

var ofTraffic = []row[server]{
	{name: "traffic.Echo", call: func(ctx context.Context, s server) error {
		return traffic.Echo(ctx, s.dial, traffic.EchoConfig{Network: s.network, Timeout: time.Hour, Window: 1000,
			Payloads: [][]byte{traffic.Bytes(1, 1000), traffic.Bytes(2, 1000)}})
	}},
	{name: "traffic.Load", call: func(ctx context.Context, s server) error {
		_, err := traffic.Load(ctx, s.dial, traffic.LoadConfig{Network: s.network, Timeout: time.Hour, Duration: time.Hour, Bytes: 60000, Window: 1000})
		return err
	}},
}

func TestTrafficEndsWithItsContext(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close() // the kernel accepts connections, and nothing reads from them
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer udp.Close()
	var d net.Dialer
	for state, s := range map[string]server{
		silent: {"udp", func(ctx context.Context, network string) (net.Conn, error) {
			return d.DialContext(ctx, network, udp.LocalAddr().String())
		}},
		full: {"tcp", func(ctx context.Context, network string) (net.Conn, error) {
			return d.DialContext(ctx, network, tcp.Addr().String())
		}},
		noDial: {"tcp", func(ctx context.Context, network string) (net.Conn, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}},
	} {
		for _, r := range ofTraffic {
			t.Run(state+" "+r.name, func(t *testing.T) { try(t, r, state, s) })
		}
	}
}
