package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// An exchange counts the sends and the answers of one payload.
type exchange struct {
	sends, answers int
	first, last    time.Time // of its sends
}

// udpEcho is one run of Echo over UDP. One goroutine sends and receives, because a
// send of a datagram does not wait for the receiver.
type udpEcho struct {
	EchoConfig
	conn      net.Conn
	exchanges []exchange
	inFlight  []int // unanswered payloads, in the order of sending
	next      int   // the next payload to send
	slowest   time.Duration
}

func echoUDP(ctx context.Context, conn net.Conn, cfg EchoConfig) error {
	e := &udpEcho{EchoConfig: cfg, conn: conn, exchanges: make([]exchange, len(cfg.Payloads))}
	err := e.run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%w; %s", err, e.progress())
}

func (e *udpEcho) run() error {
	buf := make([]byte, 1<<16) // no datagram is longer
	for {
		for e.next < len(e.Payloads) && len(e.inFlight) < e.Window {
			e.next++
			if err := e.send(e.next - 1); err != nil {
				return err
			}
		}
		if len(e.inFlight) == 0 {
			return e.listenOn(buf)
		}
		oldest := e.inFlight[0]
		err := e.receive(buf, e.exchanges[oldest].last.Add(e.Timeout))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if e.exchanges[oldest].sends > e.Resend {
				return fmt.Errorf("%s: %w: no answer %v after send %d of %d",
					e.name(oldest), ErrLost, e.Timeout, e.exchanges[oldest].sends, e.Resend+1)
			}
			e.inFlight = e.inFlight[1:]
			err = e.send(oldest)
		}
		if err != nil {
			return err
		}
	}
}

func (e *udpEcho) send(i int) error {
	x := &e.exchanges[i]
	x.last = time.Now()
	if x.sends == 0 {
		x.first = x.last
	}
	x.sends++
	e.inFlight = append(e.inFlight, i)
	if _, err := e.conn.Write(e.Payloads[i]); err != nil {
		return fmt.Errorf("send %s: %w", e.name(i), err)
	}
	return nil
}

// listenOn waits for duplicates after the last answer. The end of ctx is not a failure
// then, because Echo has compared every payload.
func (e *udpEcho) listenOn(buf []byte) error {
	until := time.Now().Add(min(max(2*e.slowest, 10*time.Millisecond), e.Timeout))
	for {
		err := e.receive(buf, until)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// receive reads one datagram and compares it with the payloads.
func (e *udpEcho) receive(buf []byte, until time.Time) error {
	if err := e.conn.SetReadDeadline(until); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	n, err := e.conn.Read(buf)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	got := buf[:n]
	for at, i := range e.inFlight {
		if bytes.Equal(e.Payloads[i], got) {
			e.exchanges[i].answers++
			e.slowest = max(e.slowest, time.Since(e.exchanges[i].first))
			e.inFlight = slices.Delete(e.inFlight, at, at+1)
			return nil
		}
	}
	answered := -1
	for i := range e.exchanges[:e.next] {
		if bytes.Equal(e.Payloads[i], got) {
			if e.exchanges[i].answers < e.exchanges[i].sends {
				e.exchanges[i].answers++
				return nil
			}
			answered = i
		}
	}
	if answered >= 0 {
		return fmt.Errorf("%s: %w: one more answer than the %d sent",
			e.name(answered), ErrDuplicate, e.exchanges[answered].sends)
	}
	// A payload in flight is more likely than an answered one, so it comes first.
	order := slices.Clone(e.inFlight)
	for i := range e.exchanges[:e.next] {
		if !slices.Contains(e.inFlight, i) {
			order = append(order, i)
		}
	}
	candidates := make([][]byte, len(order))
	for at, i := range order {
		candidates[at] = e.Payloads[i]
	}
	if at := nearest(got, candidates); at >= 0 {
		return fmt.Errorf("%s: %w: %s", e.name(order[at]), ErrAltered, difference(candidates[at], got))
	}
	return fmt.Errorf("%w: a datagram of %d bytes that resembles no payload: % x", ErrAltered, n, excerpt(got, 0))
}

func (e *udpEcho) name(i int) string {
	return fmt.Sprintf("payload[%d] (%d bytes)", i, len(e.Payloads[i]))
}

// progress returns the last part of every error. It shows whether the server never answered,
// died in between, or lost a single datagram.
func (e *udpEcho) progress() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d payloads answered, %d in flight",
		e.next-len(e.inFlight), len(e.Payloads), len(e.inFlight))
	for at, i := range e.inFlight {
		switch at {
		case 0:
			b.WriteString(": ")
		case 16:
			b.WriteString(" ...")
			return b.String()
		}
		fmt.Fprintf(&b, "[%d]", i)
	}
	return b.String()
}
