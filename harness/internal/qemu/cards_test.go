package qemu

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

func withCards(macs ...string) Machine {
	t, _ := target.Lookup("arm64")
	return Machine{Binary: "qemu-system-aarch64", Target: t, Kernel: "vmlinuz", Initramfs: "initramfs", Memory: 256, Cards: macs,
		Network: Network{Guest: netip.MustParsePrefix("192.0.2.1/24"), Guest6: netip.MustParsePrefix("2001:db8::1/64")}}
}

func TestCardsAreOnStreams(t *testing.T) {
	args := strings.Join(withCards("02:67:c0:00:02:01", "02:67:0a:00:00:01").Args(OwnRAM, nil), " ")
	require.Contains(t, args, "-netdev stream,id=net0,addr.type=fd,addr.str=12 ")
	require.Contains(t, args, "netdev=net0,mac=02:67:c0:00:02:01 ")
	require.Contains(t, args, "-netdev stream,id=net1,addr.type=fd,addr.str=13 ")
	require.Contains(t, args, "netdev=net1,mac=02:67:0a:00:00:01 ")
	require.NotContains(t, args, "user,")
	require.Contains(t, args, "guesthouse.ip=harness")
}

// A template fits machines with the same number of cards, whatever their addresses are.
func TestTheIdentityHasNoHardwareAddresses(t *testing.T) {
	one, other, two := withCards("02:00:00:00:00:01"), withCards("02:00:00:00:00:02"), withCards("02:00:00:00:00:01", "02:00:00:00:00:02")
	require.Equal(t, one.IdentityArgs(), other.IdentityArgs())
	require.NotEqual(t, one.IdentityArgs(), two.IdentityArgs())
	require.NotEqual(t, one.IdentityArgs(), withCards().IdentityArgs())
	require.Equal(t, []string{"02:00:00:00:00:01"}, one.Cards, "it stays as it was")
}

func TestAUsersAddressesAreNotReplaced(t *testing.T) {
	m := withCards("02:00:00:00:00:01")
	require.True(t, m.AwaitsAddresses())
	for _, word := range []string{"guesthouse.ip=dhcp", "quiet guesthouse.ip6=none"} {
		m.Cmdline = []string{word}
		require.False(t, m.AwaitsAddresses())
		require.NotContains(t, m.KernelCmdline(), "harness")
	}
	m.Cmdline, m.Initramfs = nil, ""
	require.False(t, m.AwaitsAddresses(), "another kernel does not know the word")
	require.False(t, withCards().AwaitsAddresses())
}
