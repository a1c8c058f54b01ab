package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

var guestIP = netip.MustParseAddr("192.0.2.1")

// QEMU's user network drops a datagram if it has to ask for the guest's hardware address and gets
// no answer in time. So a machine announces its address when it boots and when it is restored. A
// restored machine still knows the host's address.
func TestTheNetworkNeverAsksForTheGuestsHardwareAddress(t *testing.T) {
	t.Parallel()
	name := oneTarget(t)
	row, err := target.Lookup(name)
	require.NoError(t, err)
	dir := t.TempDir()
	spec := echoSpec(t, name)
	spec.QEMU = filepath.Join(dir, "qemu") // a QEMU that records all packets
	require.NoError(t, os.WriteFile(spec.QEMU, fmt.Appendf(nil,
		"#!/bin/sh\nexec %s \"$@\" -object filter-dump,id=packets,netdev=net0,file=%s/$$.pcap\n", row.QEMU, dir), 0o755))

	spec.Accel, spec.From = harness.TCG, harness.Cold
	booted := harnesstest.Boot(t, spec)
	template := booted.Save(filepath.Join(dir, "template"))
	echoes(t, booted.Dial("udp", echoPort), "found") // the machine still works
	before, err := filepath.Glob(filepath.Join(dir, "*.pcap"))
	require.NoError(t, err)
	require.Len(t, before, 1)
	spec.From = template
	echoes(t, restored(t, spec).Dial("udp", echoPort), "found")
	dumps, err := filepath.Glob(filepath.Join(dir, "*.pcap"))
	require.NoError(t, err)
	require.Len(t, dumps, 2)
	for _, dump := range dumps {
		text, err := os.ReadFile(dump)
		require.NoError(t, err)
		told := false
		for _, request := range arpRequests(t, text) {
			switch {
			case request.of == guestIP:
				require.Equal(t, guestIP, request.by, "only the guest itself asks for its address")
				told = true
			case dump != before[0]:
				t.Errorf("a restored machine asks for %v", request.of)
			}
		}
		require.True(t, told, dump)
	}
}

type arpRequest struct{ by, of netip.Addr }

// arpRequests returns the ARP requests in a packet file of QEMU's: Ethernet frames in the classic
// pcap format, in the host's byte order.
func arpRequests(t *testing.T, pcap []byte) (requests []arpRequest) {
	require.Greater(t, len(pcap), 24)
	require.EqualValues(t, 0xa1b2c3d4, binary.NativeEndian.Uint32(pcap))
	for rest := pcap[24:]; len(rest) >= 16; {
		size := binary.NativeEndian.Uint32(rest[8:])
		require.LessOrEqual(t, int(size), len(rest)-16)
		packet := rest[16 : 16+size]
		rest = rest[16+size:]
		toAll := len(packet) >= 42 && [6]byte(packet) == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		if toAll && binary.BigEndian.Uint16(packet[12:]) == 0x0806 && packet[21] == 1 {
			requests = append(requests, arpRequest{
				netip.AddrFrom4([4]byte(packet[28:32])), netip.AddrFrom4([4]byte(packet[38:42])),
			})
		}
	}
	return requests
}
