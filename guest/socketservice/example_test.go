package socketservice_test

import (
	"fmt"
	"log"
	"net"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

var echo = socketservice.Define("echo", serve, 1)

// serve sends a datagram back.
func serve(ev *socketservice.Event) {
	var buf [1500]byte
	n, from, err := unix.Recvfrom(int(ev.Fd), buf[:], 0)
	if err != nil {
		return
	}
	_ = unix.Sendto(int(ev.Fd), buf[:n], 0, from)
}

func Example() {
	if err := socketservice.Start(); err != nil {
		log.Fatal(err)
	}
	fd, err := socketservice.ListenUDP(0)
	if err != nil {
		log.Fatal(err)
	}
	err = echo.Register([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil)
	if err != nil {
		log.Fatal(err)
	}

	port, err := socketservice.Port(fd)
	if err != nil {
		log.Fatal(err)
	}
	client, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(client, "hello")
	var buf [1500]byte
	n, err := client.Read(buf[:])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(buf[:n]))
	for s := range socketservice.All() {
		fmt.Println(s.Name(), s.Owner(), len(s.Sockets()), "of", s.Slots(), "sockets")
	}
	client.Close()

	// Unregister first, so that the loop does not poll a closed socket.
	_ = echo.Unregister()
	unix.Close(fd)
	_ = socketservice.Stop()
	// Output:
	// hello
	// echo socketservice/example_test.go:13 1 of 1 sockets
}
