package qemu

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table has the format of QEMU's, and the names of the states are those of libslirp's tcpstates.
func TestAConnectionIsOpenClosingOrGone(t *testing.T) {
	for state, want := range map[string]string{
		"HOST_FORWARD": "", "TIME_WAIT": "",
		"ESTABLISHED": "open", "NONE": "open", "SOMETHING_NEW": "open",
		"SYN_SENT": "closing", "SYN_RCVD": "closing", "FIN_WAIT_1": "closing", "FIN_WAIT_2": "closing",
		"CLOSE_WAIT": "closing", "CLOSING": "closing", "LAST_ACK": "closing", "CLOSED": "closing",
	} {
		line := fmt.Sprintf("  TCP[%s]  12       127.0.0.1 36042       192.0.2.1  4242     0     0\r\n", state)
		table := "VLAN -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" + line +
			"  UDP[236 sec]     22       127.0.0.1 36042       192.0.2.1  4242     0     0\r\n"
		open, closing := Connections(table)
		got := map[bool]string{}
		got[open != ""], got[closing != ""] = "open", "closing"
		delete(got, false)
		require.Equal(t, want, got[true], state)
		if want != "" {
			require.Equal(t, fmt.Sprintf("TCP[%s] 12 127.0.0.1 36042 192.0.2.1 4242 0 0", state), open+closing)
		}
	}
}
