package integration

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/uboot"
	"guesthouse.example/harness/lan"
)

// ubootSpec returns the Spec of a machine that runs U-Boot.
func ubootSpec(t *testing.T, target string) harness.Spec {
	board, image := uboot.Image(t, target)
	return harness.Spec{Board: board, Kernel: image}
}

// pings makes U-Boot ask the lan for its address, which must be own, and ping the test's process and other machines.
func pings(t *testing.T, l *lan.Lan, m *harnesstest.Machine, own string, others ...string) {
	t.Helper()
	m.Send("setenv autoload no; dhcp")
	m.Expect(`^DHCP client bound to address ` + regexp.QuoteMeta(own) + ` `)
	m.Expect(`^=> `)
	for _, to := range append(others, lan.HostName) {
		at := l.Lookup(to)[0].String()
		m.Send("ping " + at)
		m.Expect(`^host ` + regexp.QuoteMeta(at) + ` is alive`)
		m.Expect(`^=> `)
	}
}

// A guest without an agent keeps its hardware address when it is restored. So it is restored where the lan gives it that
// address again, and boots elsewhere.
func TestABoardIsRestoredAtItsAddress(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, "arm64")
	cache := &harness.TemplateCache{Dir: t.TempDir()}
	start := func(l *lan.Lan) *harnesstest.Machine {
		spec := ubootSpec(t, "arm64")
		spec.Name, spec.Net, spec.From = "board", []harness.Network{l}, cache
		return harnesstest.Boot(t, spec)
	}
	for _, mode := range []harness.BootMode{harness.BootCold, harness.BootRestored} {
		l := newLan(t, lan.Config{})
		m := start(l)
		require.Equal(t, mode, m.Result().Boot, m.Result().Why)
		// Over PCI, U-Boot 2023.01 sends from 02:02:02:02:02:02, whatever address QEMU gives the card. So its
		// lease is another one than that of the machine.
		pings(t, l, m, "192.0.2.3")
		m.Shutdown()
	}
	l := newLan(t, lan.Config{})
	_, err := l.Join("first")
	require.NoError(t, err)
	m := start(l)
	require.Equal(t, harness.BootCold, m.Result().Boot)
	require.Contains(t, m.Result().Why, "they have [02:67:c0:00:02:01], and the networks gave [02:67:c0:00:02:03]")
}

// A guest without an agent gets its address from the lan, over cards of PCI and of virtio-mmio.
func TestABoardOnALanAsksForItsAddress(t *testing.T) {
	t.Parallel()
	l := newLan(t, lan.Config{})
	spec := harnesstest.Spec(t, oneTarget(t), echoGuest)
	spec.Name, spec.Net = "witness", []harness.Network{l}
	harnesstest.Boot(t, spec)
	for _, c := range []struct {
		name, target string
		cards        []harness.NIC
	}{
		{"e1000", "x86", nil},
		{"virtio-mmio", "arm64", []harness.NIC{{Model: "virtio-net-device"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			harnesstest.Require(t, c.target)
			spec := ubootSpec(t, c.target)
			spec.Name, spec.Net, spec.NICs = c.name, []harness.Network{l}, c.cards
			m := harnesstest.Boot(t, spec)
			pings(t, l, m, l.Lookup(c.name)[0].String(), "witness")
			m.Shutdown()
		})
	}
}
