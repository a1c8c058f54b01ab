package integration

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/lan"
)

// A client talks to a server behind a router that loses 5 % of the frames.
func TestARouterThatLosesFrames(t *testing.T) {
	near := newLan(t, lan.Config{Seed: 7})
	far := newLan(t, lan.Config{Seed: 7, IPv4: netip.MustParsePrefix("198.51.100.0/24"), IPv6: netip.MustParsePrefix("fd00:7::/64")})
	boot := func(name, guest string, env []string, nets ...harness.Network) *harnesstest.Machine {
		spec := harnesstest.Spec(t, "arm64", guest)
		spec.Name, spec.Env, spec.Net = name, env, nets
		return harnesstest.Boot(t, spec)
	}
	router := boot("router", echoGuest, nil, near, far)
	router.Output("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	require.NoError(t, near.Link("router").SetFaults(lan.Both, lan.Faults{Loss: 0.05}))

	server := boot("server", echoGuest, nil, far)
	server.Output("ip", "route", "add", "192.0.2.0/24", "via", far.Lookup("router")[0].String())

	client := boot("client", "./guests/client", []string{
		"ROUTE=198.51.100.0/24 via " + near.Lookup("router")[0].String(),
		"SERVER=" + far.Lookup("server")[0].String() + ":4242",
	}, near)
	require.Equal(t, "true", client.Event())
	require.NotZero(t, near.Link("router").Stats(lan.Up).Lost)
}
