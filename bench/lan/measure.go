package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"guesthouse.example/bench/internal/results"
)

// The ports of bench/lan/guest.
const (
	echoPort   = 4242
	sinkPort   = 4243
	sourcePort = 4244
	callerPort = 4245
)

const (
	size  = 32        // bytes of a datagram or a message that is echoed
	block = 256 << 10 // bytes that are written at once
)

// bounded makes the reads and writes of a connection fail when ctx ends.
func bounded(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

// roundTrips sends n messages to an echo service, each after the answer to the one before, and returns the median of
// the times between a message and its answer.
func roundTrips(ctx context.Context, c net.Conn, n int) (time.Duration, error) {
	defer bounded(ctx, c)()
	b := make([]byte, size)
	times := make([]float64, 0, n)
	for i := range n {
		binary.BigEndian.PutUint64(b, uint64(i))
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, fmt.Errorf("answer %d: %w", i, err)
		}
		if got := binary.BigEndian.Uint64(b); got != uint64(i) {
			return 0, fmt.Errorf("answer %d is to message %d", i, got)
		}
		times = append(times, float64(time.Since(began)))
	}
	return time.Duration(results.Median(times)), nil
}

// window is how many datagrams are in flight at once.
const window = 16

// echoes sends datagrams to an echo service until n have come back.
func echoes(ctx context.Context, c net.Conn, n int) error {
	defer bounded(ctx, c)()
	sent := make([]byte, size)
	for range window {
		if _, err := c.Write(sent); err != nil {
			return err
		}
	}
	got := make([]byte, size)
	for i := range n {
		if _, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("answer %d of a window of %d: %w", i, window, err)
		}
		if i+window < n {
			if _, err := c.Write(sent); err != nil {
				return err
			}
		}
	}
	return nil
}

// bulkIn sends n bytes to the guest's sink, and waits until the guest has read them.
func bulkIn(ctx context.Context, c net.Conn, n int) error {
	defer bounded(ctx, c)()
	if err := binary.Write(c, binary.BigEndian, uint64(n)); err != nil {
		return err
	}
	for b := make([]byte, block); n > 0; {
		wrote, err := c.Write(b[:min(n, block)])
		if err != nil {
			return err
		}
		n -= wrote
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// bulkOut reads n bytes from the guest's source.
func bulkOut(ctx context.Context, c net.Conn, n int) error {
	defer bounded(ctx, c)()
	if err := binary.Write(c, binary.BigEndian, uint64(n)); err != nil {
		return err
	}
	b := make([]byte, block)
	for n > 0 {
		got, err := c.Read(b[:min(n, block)])
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// call makes the guest's caller use the service of another guest n times, or read n bytes from it.
func call(ctx context.Context, c net.Conn, network, address string, n int) error {
	defer bounded(ctx, c)()
	if _, err := fmt.Fprintln(c, network, address, n); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return errors.New(answer)
	}
	return nil
}
