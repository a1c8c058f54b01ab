// Guesthouse is an echo server on package guest/echo with one loop, as in the guest.
package main

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"guesthouse.example/bench/socket/internal/serve"
	"guesthouse.example/guest/echo"
	"guesthouse.example/guest/socketservice"
	"guesthouse.example/guest/udpbatch"
)

func main() {
	a := serve.Parse()
	switch {
	case a.Services == 1:
		echoes(a.Clients)
	case a.Clients > 1:
		// Idle sockets that share one service, each in a slot.
		idle(1, a.Services)
	default:
		idle(a.Services, 1)
	}
	select {}
}

func echoes(clients int) {
	loop := socketservice.NewLoop(socketservice.Config{PollMax: clients + 3, Logger: slog.New(slog.DiscardHandler)})
	server := echo.New(echo.Config{Port: -1, Clients: clients, Loop: loop, Log: slog.New(slog.DiscardHandler)})
	if err := loop.Start(); err != nil {
		serve.Fail("start loop", err)
	}
	if err := server.Start(); err != nil {
		serve.Fail("start server", err)
	}
	serve.Listening(server.Port())
}

// idle registers UDP sockets on a number of services, each with a number of slots.
func idle(services, slots int) {
	loop := socketservice.NewLoop(socketservice.Config{PollMax: services*slots + 1})
	all := make([]*socketservice.Service, services)
	for i := range all {
		all[i] = loop.Define("idle", answer, slots)
	}
	if err := loop.Start(); err != nil {
		serve.Fail("start loop", err)
	}
	ports := make([]int, 0, services*slots)
	fds := make([]unix.PollFd, slots)
	for _, s := range all {
		for i := range fds {
			fd, port := listen()
			fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
			ports = append(ports, port)
		}
		if err := s.Register(fds, nil); err != nil {
			serve.Fail("register", err)
		}
	}
	serve.Listening(ports...)
}

func listen() (fd, port int) {
	fd, err := socketservice.ListenUDP(0)
	if err != nil {
		serve.Fail("listen", err)
	}
	if port, err = socketservice.Port(fd); err != nil {
		serve.Fail("listen", err)
	}
	return fd, port
}

var datagram = udpbatch.New(1, serve.Buffer)

func answer(ev *socketservice.Event) {
	if msgs, err := datagram.Receive(int(ev.Fd)); err == nil {
		_, _ = datagram.Send(int(ev.Fd), msgs)
	}
}
