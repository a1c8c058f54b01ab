// Guest is the guest of the benchmark: Zephyr's echo service on port 4242, a TCP sink, a TCP source, and a caller that
// uses the services of another guest.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"guesthouse.example/guest"
	"guesthouse.example/guest/echo"
)

// The ports that the benchmark uses, beside the echo service's.
const (
	sinkPort   = "4243" // takes a number and so many bytes, and answers with a byte
	sourcePort = "4244" // takes a number and sends so many bytes
	callerPort = "4245" // takes a line, such as "udp 192.0.2.3:4242 1000", and answers with a line
)

var server = echo.New(echo.Config{})

func main() { guest.Main(setup) }

func setup() error {
	for port, serve := range map[string]func(net.Conn) error{sinkPort: sink, sourcePort: source, callerPort: call} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go accept(l, serve)
	}
	return server.Start()
}

func accept(l net.Listener, serve func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if err := serve(c); err != nil {
				fmt.Println("guest:", err)
			}
		}()
	}
}

const block = 256 << 10 // bytes that are read or written at once

func sink(c net.Conn) error {
	n, err := count(c)
	if err != nil {
		return err
	}
	if err := discard(c, n); err != nil {
		return err
	}
	_, err = c.Write([]byte{1})
	return err
}

func source(c net.Conn) error {
	n, err := count(c)
	for b := make([]byte, block); err == nil && n > 0; {
		var wrote int
		wrote, err = c.Write(b[:min(n, block)])
		n -= uint64(wrote)
	}
	return err
}

func count(c net.Conn) (n uint64, err error) {
	err = binary.Read(c, binary.BigEndian, &n)
	return n, err
}

func discard(c net.Conn, n uint64) error {
	b := make([]byte, block)
	for n > 0 {
		got, err := c.Read(b[:min(n, block)])
		if err != nil {
			return err
		}
		n -= uint64(got)
	}
	return nil
}

// call answers with "ok" when it has done what the line says, and with the error otherwise.
func call(c net.Conn) error {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	var network, address string
	var n uint64
	_, err = fmt.Sscan(line, &network, &address, &n)
	switch {
	case err != nil:
	case network == "udp":
		err = roundTrips(address, n)
	default:
		err = fetch(address, n)
	}
	if err != nil {
		_, err = fmt.Fprintln(c, err)
		return err
	}
	_, err = fmt.Fprintln(c, "ok")
	return err
}

// roundTrips exchanges datagrams with an echo service, one after another.
func roundTrips(address string, n uint64) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 32)
	for range n {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	return nil
}

// fetch reads so many bytes from a source.
func fetch(address string, n uint64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := binary.Write(c, binary.BigEndian, n); err != nil {
		return err
	}
	return discard(c, n)
}
