package main

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"

	"guesthouse.example/internal/sys"
)

// memory is the memory of a process, in bytes.
type memory struct {
	resident int64
	private  int64 // without the pages of files, such as the program's own
	threads  int
}

func readMemory(pid int) (memory, error) {
	m, err := sys.MemoryOf(pid)
	if err != nil {
		return memory{}, fmt.Errorf("read memory: %w", err)
	}
	p, ok := sys.LookupProcess(pid)
	if !ok {
		return memory{}, fmt.Errorf("read memory: process %d has ended", pid)
	}
	return memory{m.Resident, m.Anonymous, p.Threads}, nil
}

// idleServices measures the memory of a server with the given number of UDP sockets. Each socket has
// answered a datagram. If group is more than 1, guesthouse has all of them in one service.
func (b *bench) idleServices(s server, services, group int) (memory, error) {
	p, ports, err := b.startServer(s, "udp", services, group)
	if err != nil {
		return memory{}, err
	}
	defer p.stop()
	if err := greet(ports); err != nil {
		return memory{}, p.complain(err)
	}
	return settled(p)
}

func settled(p *process) (memory, error) {
	if err := p.settle(); err != nil {
		return memory{}, p.complain(err)
	}
	return readMemory(p.pid())
}

// greet exchanges a datagram with each port.
func greet(ports []int) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("greet services: %w", err)
	}
	defer conn.Close()
	request, answer := make([]byte, 64), make([]byte, 1500)
	for i, port := range ports {
		copy(request, strconv.Itoa(i))
		to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		if _, err := conn.WriteToUDP(request, to); err != nil {
			return fmt.Errorf("greet service %d: %w", i, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return fmt.Errorf("greet service %d: %w", i, err)
		}
		n, from, err := conn.ReadFromUDP(answer)
		if err != nil {
			return fmt.Errorf("greet service %d: %w", i, err)
		}
		if from.Port != port || !bytes.Equal(answer[:n], request) {
			return fmt.Errorf("greet service %d: the answer is not what was sent", i)
		}
	}
	return nil
}
