package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// tcpEcho is one run of Echo over TCP. Sending has a goroutine of its own: if one goroutine
// sent and received, client and server could each wait for the other to read.
type tcpEcho struct {
	EchoConfig
	conn   net.Conn
	stream []byte // all payloads together
	ends   []int  // offset in stream of the end of each payload
	slots  chan struct{}
	sent   atomic.Int64 // bytes
	closed atomic.Bool  // the half-close has begun
}

func echoTCP(ctx context.Context, conn net.Conn, cfg EchoConfig) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok && !cfg.NoHalfClose {
		return fmt.Errorf("half-close: %T has no CloseWrite", conn)
	}
	e := &tcpEcho{
		EchoConfig: cfg,
		conn:       conn,
		stream:     slices.Concat(cfg.Payloads...),
		slots:      make(chan struct{}, cfg.Window),
	}
	end := 0
	for _, p := range cfg.Payloads {
		end += len(p)
		e.ends = append(e.ends, end)
	}

	stop := make(chan struct{})
	sender := make(chan error, 1)
	go func() {
		err := e.send(stop)
		if err == nil && !cfg.NoHalfClose {
			err = e.halfClose(half.CloseWrite)
		}
		sender <- err
	}()
	err := e.receive()
	close(stop)
	conn.Close()
	sendErr := <-sender

	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	progress := fmt.Sprintf("%d of %d bytes sent", e.sent.Load(), len(e.stream))
	if e.closed.Load() {
		progress += " and half-closed"
	}
	if sendErr != nil && !errors.Is(sendErr, net.ErrClosed) {
		return fmt.Errorf("%w; %s; %w", err, progress, sendErr)
	}
	return fmt.Errorf("%w; %s", err, progress)
}

func (e *tcpEcho) send(stop <-chan struct{}) error {
	for i, p := range e.Payloads {
		if len(p) == 0 {
			continue // no byte would come back to free its slot
		}
		select {
		case e.slots <- struct{}{}:
		case <-stop:
			return net.ErrClosed
		}
		n, err := e.conn.Write(p)
		e.sent.Add(int64(n))
		if err != nil {
			return fmt.Errorf("send payload[%d]: %w", i, err)
		}
	}
	return nil
}

func (e *tcpEcho) halfClose(closeWrite func() error) error {
	e.closed.Store(true) // before the call, because the server may answer it at once
	if err := closeWrite(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	return nil
}

// receive compares the stream until it ends.
func (e *tcpEcho) receive() error {
	buf := make([]byte, 32<<10)
	at, done := 0, 0 // bytes and payloads that came back
	for {
		for done < len(e.ends) && e.ends[done] <= at {
			if len(e.Payloads[done]) > 0 {
				select {
				case <-e.slots:
				default: // the server has guessed the bytes before Echo sent them
				}
			}
			done++
		}
		timeout := e.Timeout
		if e.NoHalfClose && at == len(e.stream) {
			timeout = surplusWithin
		}
		if err := e.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		n, err := e.conn.Read(buf)
		want := e.stream[at:min(at+n, len(e.stream))]
		if got := buf[:len(want)]; !bytes.Equal(want, got) {
			d := firstDifference(want, got)
			return fmt.Errorf("%w: stream differs at %s: sent % x, got % x",
				ErrAltered, e.position(at+d), excerpt(want, d), excerpt(got, d))
		}
		if n > len(want) {
			return fmt.Errorf("%w: bytes after the %d of the whole stream, from % x",
				ErrAltered, len(e.stream), excerpt(buf[:n], len(want)))
		}
		at += n
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return e.ended(at)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("receive at %s: %w", e.position(at), err)
		case at < len(e.stream):
			return fmt.Errorf("%w: nothing more came for %v at %s", ErrLost, e.Timeout, e.position(at))
		case e.NoHalfClose:
			return nil
		default:
			return fmt.Errorf("%w: every byte came back, but the server did not end the stream within %v", ErrLost, e.Timeout)
		}
	}
}

// surplusWithin is how long Echo waits for bytes after the last one, if the server does not end the stream.
const surplusWithin = 10 * time.Millisecond

func (e *tcpEcho) ended(at int) error {
	switch {
	case at < len(e.stream):
		return fmt.Errorf("%w: server ended the stream at %s: the last %d bytes did not come back",
			ErrLost, e.position(at), len(e.stream)-at)
	case e.NoHalfClose:
		return fmt.Errorf("%w: server ended the stream before the client closed it", ErrLost)
	case !e.closed.Load():
		return fmt.Errorf("%w: server ended the stream before the half-close", ErrLost)
	}
	return nil
}

func (e *tcpEcho) position(at int) string {
	i, _ := slices.BinarySearch(e.ends, at+1)
	if i == len(e.ends) {
		return fmt.Sprintf("the end of its %d bytes", len(e.stream))
	}
	return fmt.Sprintf("byte %d of %d (byte %d of payload[%d])",
		at, len(e.stream), at-(e.ends[i]-len(e.Payloads[i])), i)
}
