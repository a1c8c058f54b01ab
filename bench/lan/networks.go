package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"

	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/harness"
	"guesthouse.example/harness/lan"
)

// The names of the networks that are measured.
const (
	ours     = "lan"
	user     = "slirp"    // QEMU's user network
	filtered = "filtered" // QEMU's user network with the filter of Spec.Outbound, which a Spec has by default
	passt    = "passt"
)

// allNetworks are the networks that the pages show. A host without passt measures the others.
var allNetworks = []string{ours, user, filtered, passt}

// networks returns the networks that this host can measure.
func networks() (names []string) {
	for _, name := range allNetworks {
		if _, err := exec.LookPath(passt); name != passt || err == nil {
			names = append(names, name)
		}
	}
	return names
}

// A bench holds the data that the runs share.
type bench struct {
	guests echoguest.Guests
}

// A wire is the network of the machines of one measurement.
type wire struct {
	network string
	lan     *lan.Lan // of the network ours
	passts  []*passtNetwork
}

func newWire(network string) (w *wire, err error) {
	w = &wire{network: network}
	if network == ours {
		w.lan, err = lan.New(lan.Config{})
	}
	return w, err
}

func (w *wire) close() {
	if w.lan != nil {
		w.lan.Close()
	}
}

// put puts a machine on the network.
func (w *wire) put(spec *harness.Spec) {
	switch w.network {
	case ours:
		spec.Net, spec.Ports = []harness.Network{w.lan}, nil
	case passt:
		p := &passtNetwork{}
		w.passts = append(w.passts, p)
		spec.Net, spec.Ports = []harness.Network{p}, nil
	case user:
		spec.Outbound = harness.OutboundInternet
	case filtered:
		spec.Outbound = harness.OutboundHost // a guest reaches another one; the filter does the same work as with the default
	}
}

// pids returns the processes that carry frames, beside this process and QEMU.
func (w *wire) pids() (all []int) {
	for _, p := range w.passts {
		all = append(all, p.command.Process.Pid)
	}
	return all
}

// reach returns the address of a guest's port for another guest. On a network with one guest, the way leads through a
// port of the host.
func (w *wire) reach(m *harness.Machine, network string, port int) (string, error) {
	switch w.network {
	case ours:
		return net.JoinHostPort(w.lan.Lookup("guest2")[0].String(), strconv.Itoa(port)), nil
	case passt:
		return net.JoinHostPort(gateway, strconv.Itoa(w.passts[1].host(port))), nil
	}
	for _, p := range m.Ports() {
		if p.Network == network && p.Guest == port {
			return net.JoinHostPort(gateway, strconv.Itoa(p.Host)), nil
		}
	}
	return "", fmt.Errorf("no port of the host leads to %s/%d", network, port)
}

// gateway is the address under which a guest reaches the host's loopback.
const gateway = "192.0.2.2"

// start restores the case's guests.
func (b *bench) start(ctx context.Context, w *wire, guests int) (machines []*harness.Machine, err error) {
	spec, err := b.saved(ctx, w.network)
	if err != nil {
		return nil, err
	}
	for range guests {
		on := spec
		w.put(&on)
		m, err := harness.Boot(ctx, on)
		if err != nil {
			end(machines)
			return nil, err
		}
		machines = append(machines, m)
		if r := m.Result(); r.Boot != harness.BootRestored {
			end(machines)
			return nil, fmt.Errorf("the machine was booted and not restored: %s", r.Why)
		}
	}
	return machines, nil
}

func end(machines []*harness.Machine) {
	for _, m := range machines {
		m.Close()
	}
}

// saved returns a Spec that restores the guest, but names no network.
func (b *bench) saved(ctx context.Context, network string) (harness.Spec, error) {
	spec, err := b.guests.Cold(ctx, target)
	if err != nil {
		return spec, err
	}
	for _, port := range []int{sinkPort, sourcePort, callerPort} {
		spec.Ports = append(spec.Ports, "tcp/"+strconv.Itoa(port))
	}
	// Passt uses the template of the lan: for QEMU, both are streams.
	if network == passt {
		network = ours
	}
	w, err := newWire(network)
	if err != nil {
		return spec, err
	}
	defer w.close()
	boots := spec
	w.put(&boots)
	boots, err = b.guests.Saved(ctx, boots, network)
	spec.From, spec.Accel = boots.From, boots.Accel
	return spec, err
}
