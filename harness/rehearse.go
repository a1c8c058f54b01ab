package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
)

// warmUpWithin bounds warmUp, in the machine's time.
const warmUpWithin = 5 * time.Second

// warmUp has the guest do what each machine restored from it would do first: with the first
// datagram it asks for the network's address, and takes memory. What has no agent or cannot be
// reached, as by a cut link, is saved all the same.
func (v *vm) warmUp(ctx context.Context) {
	ctx, cancel := v.within(ctx, warmUpWithin)
	defer cancel()
	if v.awaitAgent(ctx) == nil {
		v.rehearse(ctx)
	}
}

const (
	rehearsals     = 10                    // echoes: later ones gain nothing
	rehearsalAgain = 20 * time.Millisecond // after which one that may be lost is asked for again
)

// rehearse has QEMU translate what the guest runs for a datagram, and both ends learn
// each other's address: that is most of the time of a first echo. No service is asked,
// but the agent.
func (v *vm) rehearse(ctx context.Context) error {
	ctx, cancel := v.within(ctx, agentWithin)
	defer cancel()
	port, err := v.agent.WarmUp(ctx)
	if err != nil || port == 0 { // without a network there is no echo to rehearse
		return err
	}
	forwarded, err := v.forward(ctx, []qemu.Forward{{Network: "udp", Guest: port}}, nil)
	if err != nil {
		return err
	}
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(forwarded[0].Host))
	err = rehearsal(ctx, host)
	remove := func() error {
		ctx, cancel := v.within(context.WithoutCancel(ctx), warmUpWithin)
		defer cancel()
		var said string
		return v.qmp.ExecuteAll(ctx, qmp.Human("hostfwd_remove net0 udp:"+host, &said))
	}
	if ctx.Err() != nil {
		go remove() // when QEMU answers
		return err
	}
	return errors.Join(err, remove())
}

// rehearsal has the guest's agent echo datagrams.
func rehearsal(ctx context.Context, host string) error {
	conn, err := net.Dial("udp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	for done := 0; done < rehearsals; {
		conn.Write([]byte{0})
		conn.SetReadDeadline(time.Now().Add(rehearsalAgain))
		n, err := conn.Read(make([]byte, 1))
		switch {
		case n == 1:
			done++
		case ctx.Err() != nil:
			return fmt.Errorf("rehearsal: no echo of the guest's agent: %w", context.Cause(ctx))
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("rehearsal: %w", err)
		}
	}
	return nil
}
