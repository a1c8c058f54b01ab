package echoguest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALostEchoIsRequestedAgain(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	go func() {
		buf := make([]byte, 8)
		for i := 0; ; i++ {
			n, from, err := server.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if i > 0 {
				server.WriteToUDP(buf[:n], from)
			}
		}
	}()
	conn, err := net.Dial("udp", server.LocalAddr().String())
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, Wait(ctx, conn))
}
