package agent

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnAnnouncementIsAnARPRequestForTheSendersAddress(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:12:34:56")
	require.NoError(t, err)
	require.Equal(t, []byte{
		0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, the lengths of their addresses, request
		0x52, 0x54, 0, 0x12, 0x34, 0x56, 192, 0, 2, 1,
		0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
	}, announcement(mac, net.IPv4(192, 0, 2, 1).To4()))
}
