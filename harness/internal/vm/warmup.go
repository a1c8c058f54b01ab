package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/internal/filetree"
	"guesthouse.example/internal/wire"
)

// warmUpWithin bounds warmUp, in the machine's time.
const warmUpWithin = 5 * time.Second

// warmUp makes the guest echo datagrams before it is saved. At its first datagram a guest resolves the
// gateway's address and allocates memory, which each restored machine would otherwise do again. A machine
// that was restored or saved has done so before; a program that was started since gains nothing more from
// it. Save ignores a failure: the guest may have no agent, or its link may be down.
func (v *VM) warmUp(ctx context.Context) {
	ctx, cancel := v.Within(ctx, warmUpWithin)
	defer cancel()
	if v.AwaitAgent(ctx) == nil {
		v.echoDatagrams(ctx)
	}
}

const (
	warmUpEchoes = 10                    // more echoes gain nothing
	echoWithin   = 20 * time.Millisecond // without an echo, the datagram counts as lost and is sent again
)

// echoDatagrams makes the guest's agent echo datagrams. QEMU thereby translates the guest's code for
// datagrams, and both ends learn each other's address, which takes most of the time of a first echo. The
// guest's services do not see the datagrams.
func (v *VM) echoDatagrams(ctx context.Context) error {
	if v.onStreams() {
		return nil // the datagrams would need a host on the network
	}
	ctx, cancel := v.Within(ctx, AgentWithin)
	defer cancel()
	port, err := v.Agent.WarmUp(ctx)
	if err != nil || port == 0 { // a guest without a network returns port 0
		return err
	}
	forwarded, err := v.forward(ctx, []qemu.Forward{{Network: "udp", Guest: port}}, nil)
	if err != nil {
		return err
	}
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(forwarded[0].Host))
	err = echo(ctx, host)
	remove := func() error {
		ctx, cancel := v.Within(context.WithoutCancel(ctx), warmUpWithin)
		defer cancel()
		var answer string
		return v.QMP.ExecuteAll(ctx, qmp.Human("hostfwd_remove net0 udp:"+host, &answer))
	}
	if ctx.Err() != nil {
		go remove() // when QEMU answers
		return err
	}
	return errors.Join(err, remove())
}

// echo sends datagrams until the guest's agent has echoed warmUpEchoes of them.
func echo(ctx context.Context, host string) error {
	conn, err := net.Dial("udp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	for done := 0; done < warmUpEchoes; {
		conn.Write([]byte{0})
		conn.SetReadDeadline(time.Now().Add(echoWithin))
		n, err := conn.Read(make([]byte, 1))
		switch {
		case n == 1:
			done++
		case ctx.Err() != nil:
			return fmt.Errorf("warm-up: no echo of the guest's agent: %w", context.Cause(ctx))
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("warm-up: %w", err)
		}
	}
	return nil
}

// rehearsed is the size of the file of rehearseDelivery in bytes: as much as one request of the guest's disk
// carries.
const rehearsed = filetree.MaxBatch

// rehearseDelivery delivers a file to a path of the guest, where a later delivery replaces it, and runs a
// command. QEMU thereby translates the guest's code for a delivery and for the start of a program.
func (v *VM) rehearseDelivery(ctx context.Context, path string) error {
	ctx, cancel := v.Within(ctx, warmUpWithin)
	defer cancel()
	fd, err := unix.MemfdCreate("rehearsal", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "rehearsal")
	defer f.Close()
	content := bytes.Repeat([]byte("rehearse"), rehearsed/8)
	if _, err := f.Write(content); err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if err := v.Deliver(ctx, f, path, 0o600, hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	command, err := v.StartCommand(ctx, wire.Command{Args: []string{"true"}})
	if err != nil {
		return err
	}
	defer command.Release()
	return v.FollowCommand(ctx, command) // the guest may have no such command
}
