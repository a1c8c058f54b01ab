package echotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"guesthouse.example/host/traffic"
)

type checks struct {
	Service
	Profile
}

// wait returns how long to wait for an answer.
func (c checks) wait(promised bool) time.Duration {
	if promised {
		return c.Timeout
	}
	return c.Unpromised
}

// broken returns an error if something promised was not seen.
func broken(promised, seen bool, format string, args ...any) error {
	if promised && !seen {
		return fmt.Errorf(format, args...)
	}
	return nil
}

func (c checks) console(ctx context.Context) (string, error) {
	if c.Console == nil {
		return "no console", nil
	}
	conn, err := c.client(ctx)
	if err != nil {
		return "no client is served", err
	}
	defer conn.Close()
	expect := func(pattern string) (string, error) {
		if pattern == "" {
			return "", nil
		}
		ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not within %v", c.Timeout))
		defer cancel()
		match, err := c.Service.Console.Expect(ctx, pattern)
		if err != nil {
			return "", err
		}
		return match[0], nil
	}
	opened, err := expect(c.Connected)
	if err != nil {
		return "no line at the connection", err
	}
	conn.Close()
	closed, err := expect(c.Closed)
	if err != nil {
		return "only: " + opened, err
	}
	return "both lines", broken(c.Connected != "" && c.Closed != "", opened != "" && closed != "", "an empty match")
}

const datagrams = 22 // as many as echo-client's payloads

// window counts the answers to datagrams of which as many are in flight.
func (c checks) window(ctx context.Context, window int) (string, error) {
	promised := window <= c.Window
	result, err := traffic.Load(ctx, c.Dial, traffic.LoadConfig{Network: "udp", Window: window, Requests: datagrams, Timeout: c.wait(promised)})
	saw := fmt.Sprintf("%d of %d", result.Received, datagrams)
	if errors.Is(err, traffic.ErrAltered) || errors.Is(err, traffic.ErrDuplicate) {
		return saw, err // an answer that was never asked for breaks every promise
	}
	if err == nil {
		err = broken(true, result.Received == datagrams, "%d are lost", result.Lost)
	}
	if !promised {
		return saw, nil
	}
	return saw, err
}

// datagram says how much of a datagram comes back.
func (c checks) datagram(ctx context.Context, size int) (string, error) {
	promised := size <= c.Datagram
	conn, err := c.Dial(ctx, "udp")
	if err != nil {
		return "no connection", err
	}
	defer conn.Close()
	sent := traffic.Bytes(uint64(size), size)
	if _, err := conn.Write(sent); err != nil {
		return "not sent", broken(promised, false, "%w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(c.wait(promised))); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	switch {
	case err != nil:
		return "none", broken(promised, false, "%w", err)
	case bytes.Equal(buf[:n], sent):
		return "whole", nil
	case bytes.HasPrefix(sent, buf[:n]):
		return fmt.Sprintf("the first %d bytes", n), broken(promised, false, "cut")
	}
	return fmt.Sprintf("%d other bytes", n), traffic.ErrAltered
}

// stream checks a stream of many payloads, which the client closes when all bytes are back.
func (c checks) stream(ctx context.Context) (string, error) {
	err := traffic.Echo(ctx, c.Dial, traffic.EchoConfig{Network: "tcp", Window: c.Window, NoHalfClose: true, Timeout: c.Timeout})
	if err != nil {
		return "not every byte", err
	}
	return "every byte", nil
}

// mostClients bounds the search for the capacity.
const mostClients = 32

// clients connects clients until one is not served.
func (c checks) clients(ctx context.Context) (string, error) {
	var served []net.Conn
	defer func() {
		for _, conn := range served {
			conn.Close()
		}
	}()
	deadline := time.Now().Add(c.Timeout)
	for len(served) < max(mostClients, c.Clients+1) {
		promised := len(served) < c.Clients
		conn, err := c.Dial(ctx, "tcp")
		if err != nil {
			return fmt.Sprintf("%d, then no connection", len(served)), broken(promised, false, "%d are promised: %w", c.Clients, err)
		}
		n, err := c.echo(conn, fmt.Appendf(nil, "client %2d", len(served)), c.wait(promised))
		if err == nil {
			served = append(served, conn)
			deadline = time.Now().Add(c.Timeout)
			continue
		}
		conn.Close()
		// The service may not have noticed yet that earlier clients have gone.
		if promised && time.Now().Before(deadline) && pause(ctx) {
			continue
		}
		then, refused := "silence", !errors.Is(err, os.ErrDeadlineExceeded)
		if refused {
			then = "the end of the stream"
		}
		saw := fmt.Sprintf("%d, then %s", len(served), then)
		switch {
		case promised:
			return saw, fmt.Errorf("%d are promised: %w", c.Clients, err)
		case n > 0:
			return saw, fmt.Errorf("a client without room got %d bytes", n)
		}
		return saw, broken(c.Refuses, refused, "a client without room is promised the end of its stream")
	}
	return fmt.Sprintf("%d or more", len(served)), nil
}

// retryEvery is the pause between attempts to connect to a service that is still closing connections.
const retryEvery = 20 * time.Millisecond

// pause returns false if ctx ends.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(retryEvery):
		return true
	case <-ctx.Done():
		return false
	}
}

// client connects a TCP client that is served. The service may not have noticed yet that earlier ones have gone.
func (c checks) client(ctx context.Context) (net.Conn, error) {
	for deadline := time.Now().Add(c.Timeout); ; {
		conn, err := c.Dial(ctx, "tcp")
		if err == nil {
			if _, err = c.echo(conn, []byte("x"), c.Timeout); err == nil {
				return conn, nil
			}
			conn.Close()
		}
		if !time.Now().Before(deadline) || !pause(ctx) {
			return nil, err
		}
	}
}

// halfClose sends bytes and the end of the stream at once, and says what comes back.
func (c checks) halfClose(ctx context.Context, size int) (string, error) {
	conn, err := c.client(ctx)
	if err != nil {
		return "no client is served", err
	}
	defer conn.Close()
	sent := traffic.Bytes(uint64(size), size)
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return "", fmt.Errorf("%T has no CloseWrite", conn)
	}
	go func() { // the service may not read before it can write
		if _, err := conn.Write(sent); err == nil {
			_ = half.CloseWrite() // the reader sees a connection that is broken
		}
	}()
	var got []byte
	buf := make([]byte, 32<<10)
	for err == nil && len(got) <= size {
		if err = conn.SetReadDeadline(time.Now().Add(c.wait(c.HalfClose))); err != nil {
			return "", err
		}
		var n int
		n, err = conn.Read(buf)
		got = append(got, buf[:n]...)
	}
	then := "silence"
	switch {
	case !bytes.HasPrefix(sent, got):
		return fmt.Sprintf("%d bytes, some of them others", len(got)), traffic.ErrAltered
	case errors.Is(err, io.EOF):
		then = "the end of the stream"
	case !errors.Is(err, os.ErrDeadlineExceeded):
		then = "a broken connection"
	}
	return fmt.Sprintf("%d bytes, then %s", len(got), then),
		broken(c.HalfClose, len(got) == size && errors.Is(err, io.EOF), "%d bytes and the end of the stream are promised", size)
}

// floodLimit is more than the buffers between a client and a service hold.
const floodLimit = 64 << 20

// neverReads lets a client send until the service takes no more, and sees whether others are served meanwhile.
func (c checks) neverReads(ctx context.Context) (string, error) {
	greedy, err := c.client(ctx)
	if err != nil {
		return "no client is served", err
	}
	defer c.leave(greedy)
	block := traffic.Bytes(1, 64<<10)
	for sent := 0; sent < floodLimit && ctx.Err() == nil; sent += len(block) {
		if err := greedy.SetWriteDeadline(time.Now().Add(c.Unpromised)); err != nil {
			return "", err
		}
		if _, err := greedy.Write(block); err != nil {
			break // it takes no more
		}
	}
	answers := func(network string, promised bool) (bool, error) {
		conn, err := c.Dial(ctx, network)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		_, err = c.echo(conn, []byte("another client"), c.wait(promised))
		return err == nil, err
	}
	tcp, tcpErr := answers("tcp", c.Independent)
	udp, udpErr := answers("udp", true)
	saw := map[[2]bool]string{
		{true, true}: "TCP and UDP answer", {false, true}: "only UDP answers", {true, false}: "only TCP answers", {false, false}: "nothing answers",
	}[[2]bool{tcp, udp}]
	return saw, errors.Join(broken(c.Independent, tcp, "TCP: %w", tcpErr), broken(true, udp, "UDP: %w", udpErr))
}

// leave ends the stream of a client and reads until the service ends its own, so that the close resets nothing. A
// reset aborts a QEMU with libslirp 4.7 if the guest has not taken all bytes of the client.
func (c checks) leave(conn net.Conn) {
	defer conn.Close()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(c.Timeout)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn) // the verdict does not depend on this
}

// echo sends a message and reads it back. It returns how many bytes came.
func (c checks) echo(conn net.Conn, message []byte, within time.Duration) (n int, err error) {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(message); err != nil {
		return 0, err
	}
	got := make([]byte, len(message))
	if n, err = io.ReadFull(conn, got); err != nil {
		return n, err
	}
	if !bytes.Equal(got, message) {
		return n, traffic.ErrAltered
	}
	return n, nil
}
