package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/lan"
)

// Eight machines on one lan have addresses of their own from the first frame that they send, and reach each other.
// They are clones of one template, or in the nightly run of those of four targets.
func TestEightMachinesExchangeTraffic(t *testing.T) {
	targets := []string{"x86_64"}
	if os.Getenv("GUESTHOUSE_TEST_EVERY_TARGET") != "" {
		targets = []string{"x86", "x86_64", "arm", "arm64"}
	}
	l := newLan(t, lan.Config{})
	const count = 8
	machines := make([]*harnesstest.Machine, count)
	for i := range machines {
		spec := harnesstest.Spec(t, targets[i%len(targets)], "./guests/pinger")
		spec.Name, spec.Net = fmt.Sprintf("m%d", i), []harness.Network{l}
		spec.Dir = t.TempDir()
		machines[i] = harnesstest.Boot(t, spec)
	}
	for i, m := range machines {
		next := fmt.Sprintf("m%d", (i+1)%count)
		pinger := m.Dial("tcp6", 4243)
		_, err := fmt.Fprintln(pinger, l.Lookup(next)[1])
		require.NoError(t, err)
		answer, err := io.ReadAll(pinger)
		require.NoError(t, err)
		require.Equal(t, "<nil>\n", string(answer))
		for _, network := range []string{"udp6", "tcp"} {
			echo(t, m.Dial(network, 4242), []byte(network+" to "+next))
		}
	}
	own := make(map[string]string)
	for i, m := range machines {
		at := l.Lookup(fmt.Sprintf("m%d", i))[0].As4()
		mac := net.HardwareAddr{0x02, 0x67, at[0], at[1], at[2], at[3]}.String()
		require.Empty(t, own[mac])
		own[mac] = m.Dir()
	}
	for _, m := range machines {
		m.Close()
	}
	for mac, dir := range own {
		require.Equal(t, map[string]bool{mac: true}, sources(t, dir), "the frames that the machine has sent")
	}
}

// sources returns the hardware addresses of the frames that a machine has sent, by the capture in its record.
func sources(t *testing.T, dir string) map[string]bool {
	file, err := os.Open(filepath.Join(dir, "net0.pcapng"))
	require.NoError(t, err)
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	found := make(map[string]bool)
	for {
		frame, _, options, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			return found
		}
		require.NoError(t, err)
		if options.Flags != nil && options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			found[net.HardwareAddr(frame[6:12]).String()] = true
		}
	}
}
