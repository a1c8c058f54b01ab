// Go-net is an echo server on package net, written as its documentation shows. It has
// one goroutine for each TCP connection and one for each UDP socket, and uses the
// address type that needs no allocation.
package main

import (
	"net"

	"guesthouse.example/bench/socket/internal/serve"
)

func main() {
	a := serve.Parse()
	var ports []int
	for range a.Services {
		if a.Network == "tcp" {
			ports = append(ports, listenTCP())
		} else {
			ports = append(ports, listenUDP())
		}
	}
	serve.Listening(ports...)
	select {}
}

func listenUDP() int {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		serve.Fail("listen", err)
	}
	go func() {
		buf := make([]byte, serve.Buffer)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func listenTCP() int {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		serve.Fail("listen", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				serve.Fail("accept", err)
			}
			go echo(conn)
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, serve.Buffer)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}
