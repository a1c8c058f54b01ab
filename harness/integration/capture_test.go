package integration

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// A restored machine is captured, although its template was saved without a capture. The capture has what the filter
// of the guest's network stops, too, and the times are the host's.
func TestCaptureOnTheUserNetwork(t *testing.T) {
	const target = "arm64"
	harnesstest.Require(t, target)
	spec := harnesstest.Spec(t, target, echoGuest)
	spec.Ports = []string{"udp/4242"}
	harnesstest.Boot(t, spec) // so that there is a template
	spec.Capture, spec.Dir = true, filepath.Join(t.TempDir(), "record")
	began := time.Now().Add(-time.Second)
	m := harnesstest.Boot(t, spec)
	if os.Getenv("GUESTHOUSE_COLD") == "" {
		require.Equal(t, harness.BootRestored, m.Machine.Result().Boot, m.Machine.Result().Why)
	}
	var followed bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- m.Machine.FollowCapture(t.Context(), 0, &followed) }()
	conn := m.Dial("udp", 4242)
	_, err := conn.Write([]byte("shown twice"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 100))
	require.NoError(t, err)
	m.Output("sh", "-c", "ip route add 198.51.100.0/24 via 192.0.2.2 && ! ping -c 1 198.51.100.7")
	m.Shutdown()
	require.NoError(t, <-done)

	file, err := os.ReadFile(filepath.Join(spec.Dir, "net0.pcap"))
	require.NoError(t, err)
	require.Equal(t, file, followed.Bytes())
	require.Equal(t, uint32(0xa1b2c3d4), binary.NativeEndian.Uint32(file))
	payloads := 0
	pings := map[byte]int{} // by ICMP type
	for at := 24; at < len(file); {
		size := int(binary.NativeEndian.Uint32(file[at+8:]))
		when := time.Unix(int64(binary.NativeEndian.Uint32(file[at:])), 1000*int64(binary.NativeEndian.Uint32(file[at+4:])))
		require.True(t, when.After(began) && when.Before(time.Now()), "%v", when)
		frame := file[at+16 : at+16+size]
		payloads += bytes.Count(frame, []byte("shown twice"))
		if ip := frame[14:]; len(ip) > 20 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && ip[9] == 1 {
			pings[ip[20]]++
		}
		at += 16 + size
	}
	require.Equal(t, 2, payloads, "to the guest and back")
	require.Equal(t, map[byte]int{8: 1}, pings, "a request that the filter stopped, and no answer")
}
