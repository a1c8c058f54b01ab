package traffic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// A client is one connection of a load.
type client struct {
	*load
	index  int
	conn   net.Conn
	stream bool
	frame  []byte // belongs to the sender
	want   []byte // belongs to the loop

	inFlight []request // in the order of sending
	sendTCP  chan uint64
	sendErr  error // of the TCP sender; read only after the sender has ended
}

type request struct {
	number uint64
	sent   time.Time
}

func (c *client) run() {
	var err error
	if c.stream {
		c.sendTCP = make(chan uint64, c.Window) // never full: at most Window are in flight
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.sender()
		}()
		err = c.loop(make([]byte, c.Bytes))
		close(c.sendTCP)
		c.conn.Close()
		<-ended
		switch {
		case err == nil || c.sendErr == nil:
		case errors.Is(err, net.ErrClosed):
			err = c.sendErr // the cause: the sender closed the connection
		default: // after a reset, one of the two errors may be only an end of stream
			err = fmt.Errorf("%w; %w", err, c.sendErr)
		}
	} else {
		err = c.loop(make([]byte, 1<<16)) // no datagram is longer
	}
	if err == nil {
		return
	}
	if c.ctx.Err() != nil {
		c.cut.Store(true)
		return
	}
	if n := len(c.inFlight); n > 0 {
		c.lost.Add(int64(n))
		err = fmt.Errorf("%w; %d requests in flight", err, n)
	}
	c.fail(fmt.Errorf("client %d: %w", c.index, err))
}

// loop keeps the window full and reads answers until every request has been sent
// and is answered or lost. An error ends the connection.
func (c *client) loop(buf []byte) error {
	for more := true; ; {
		for more && len(c.inFlight) < c.Window {
			var number uint64
			if number, more = c.take(); !more {
				break
			}
			if err := c.send(number); err != nil {
				return err
			}
		}
		if len(c.inFlight) == 0 {
			return nil
		}
		if err := c.conn.SetReadDeadline(c.inFlight[0].sent.Add(c.Timeout)); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		var n int
		var err error
		if c.stream {
			n, err = io.ReadFull(c.conn, buf)
		} else {
			n, err = c.conn.Read(buf)
		}
		switch {
		case err == nil:
			if err := c.judge(buf[:n], time.Now()); err != nil {
				if c.stream {
					return err // the rest of the stream would not match either
				}
				c.fail(fmt.Errorf("client %d: %w", c.index, err))
			}
		case c.stream && errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("request %d: %w: %d of %d bytes came back in %v",
				c.inFlight[0].number, ErrLost, n, c.Bytes, c.Timeout)
		case c.stream && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return fmt.Errorf("request %d: %w: server ended the stream after %d of %d bytes",
				c.inFlight[0].number, ErrLost, n, c.Bytes)
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.expire(time.Now())
		default:
			return fmt.Errorf("receive: %w", err)
		}
	}
}

func (c *client) send(number uint64) error {
	c.inFlight = append(c.inFlight, request{number, time.Now()})
	c.sent.Add(1)
	if c.stream {
		c.sendTCP <- number
		return nil
	}
	c.fill(c.frame, number)
	if _, err := c.conn.Write(c.frame); err != nil {
		return fmt.Errorf("send request %d: %w", number, err)
	}
	return nil
}

// sender writes the requests of a TCP client on a goroutine of its own: if the loop
// wrote them, client and server could each wait for the other to read.
func (c *client) sender() {
	for number := range c.sendTCP {
		c.fill(c.frame, number)
		if _, err := c.conn.Write(c.frame); err != nil {
			if !errors.Is(err, net.ErrClosed) { // closed by the loop, which knows why
				c.sendErr = fmt.Errorf("send request %d: %w", number, err)
			}
			c.conn.Close()
			return
		}
	}
}

// judge compares an answer with its request: on UDP the one whose number the answer
// carries, on TCP the oldest in flight.
func (c *client) judge(got []byte, now time.Time) error {
	number := ^uint64(0)
	if len(got) >= tagBytes {
		number = binary.BigEndian.Uint64(got)
	}
	at := slices.IndexFunc(c.inFlight, func(r request) bool { return c.stream || r.number == number })
	if at >= 0 {
		r := c.inFlight[at]
		c.fill(c.want, r.number)
		if !bytes.Equal(c.want, got) {
			return fmt.Errorf("request %d: %w: %s", r.number, ErrAltered, difference(c.want, got))
		}
		c.answered(r.sent, now)
		c.inFlight = slices.Delete(c.inFlight, at, at+1)
		return nil
	}
	if number < c.taken.Load() {
		if c.fill(c.want, number); bytes.Equal(c.want, got) {
			return fmt.Errorf("request %d: %w: a second answer, an answer after more than %v, or the answer to another client",
				number, ErrDuplicate, c.Timeout)
		}
	}
	return fmt.Errorf("%w: an answer of %d bytes to no request: % x", ErrAltered, len(got), excerpt(got, 0))
}

// expire removes the requests whose timeout has passed, and counts them as lost.
func (c *client) expire(now time.Time) {
	for len(c.inFlight) > 0 && now.Sub(c.inFlight[0].sent) >= c.Timeout {
		c.inFlight = c.inFlight[1:]
		c.lost.Add(1)
	}
}
