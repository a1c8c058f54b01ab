package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/hugelgupf/vmtest/qemu"
	"github.com/hugelgupf/vmtest/qemu/qnetwork"

	"guesthouse.example/bench/internal/echoguest"
)

// A vmtestTarget holds what a user of vmtest chooses: QEMU's machine and the console. On x86 the
// machine is QEMU's default.
type vmtestTarget struct {
	arch    qemu.Arch
	command string
	cmdline string
}

var vmtestTargets = map[string]vmtestTarget{
	"x86":    {qemu.ArchI386, "qemu-system-i386 -m 256", "console=ttyS0"},
	"x86_64": {qemu.ArchAMD64, "qemu-system-x86_64 -m 256", "console=ttyS0"},
	"arm":    {qemu.ArchArm, "qemu-system-arm -M virt,highmem=off -cpu cortex-a15 -m 256", "console=ttyAMA0"},
	"arm64":  {qemu.ArchArm64, "qemu-system-aarch64 -M virt -cpu cortex-a57 -m 256", "console=ttyAMA0"},
}

// vmtest boots the case's kernel and initramfs with github.com/hugelgupf/vmtest, as its documentation
// shows, and waits for the first echo.
func (b *bench) vmtest(ctx context.Context, c benchCase) (map[string]float64, error) {
	spec, err := b.guests.Cold(ctx, c.target)
	if err != nil {
		return nil, err
	}
	t := vmtestTargets[c.target]
	port, err := freePort(c.network)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	vm, err := qemu.StartContext(ctx, t.arch,
		qemu.WithQEMUCommand(t.command),
		qemu.WithKernel(spec.Kernel),
		qemu.WithInitramfs(spec.Initramfs),
		qemu.WithAppendKernel(t.cmdline, "guesthouse.ip6=none"),
		qnetwork.HostNetwork("192.0.2.0/24",
			qnetwork.WithDevice[qnetwork.UserBackend](qnetwork.WithNIC(qnetwork.NICVirtioNet)),
			qnetwork.WithUser(qnetwork.WithUserArg("host=192.0.2.2",
				fmt.Sprintf("hostfwd=%s:127.0.0.1:%d-192.0.2.1:%d", c.network, port, echoguest.Port)))))
	if err != nil {
		return nil, err
	}
	defer func() {
		vm.Kill()
		vm.Wait()
	}()
	// vmtest learns from the console that a guest is ready.
	if said, err := vm.Console.ExpectString("guesthouse: ready"); err != nil {
		return nil, fmt.Errorf("not ready: %w; the console ends in %q", err, tail(said))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, c.network, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := echoguest.Wait(ctx, conn); err != nil {
		return nil, err
	}
	return map[string]float64{ms: float64(time.Since(begin).Microseconds()) / 1000}, nil
}

func tail(said string) string {
	said = strings.TrimSpace(said)
	return said[max(len(said)-200, 0):]
}

// freePort returns a port of the host that was free a moment ago, because vmtest does not let QEMU
// choose one.
func freePort(network string) (int, error) {
	if network == "udp" {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return 0, err
		}
		port := conn.LocalAddr().(*net.UDPAddr).Port
		return port, conn.Close()
	}
	if network != "tcp" {
		return 0, errors.New("unknown network " + network)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
