// Upper is a guest. It receives datagrams on UDP port 4242 and sends each one back in capital letters.
package main

import (
	"bytes"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
	"guesthouse.example/guest/socketservice"
)

var upper = socketservice.Define("upper", serve, 1)

func main() { guest.Main(setup) }

func setup() error {
	fd, err := socketservice.ListenUDP(4242)
	if err != nil {
		return err
	}
	return upper.Register([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil)
}

func serve(ev *socketservice.Event) {
	buf := make([]byte, 1500)
	if n, from, err := unix.Recvfrom(int(ev.Fd), buf, 0); err == nil {
		unix.Sendto(int(ev.Fd), bytes.ToUpper(buf[:n]), 0, from)
	}
}
