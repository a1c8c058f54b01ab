// Package serve implements the arguments and the output of the servers that are written in Go. Each
// server is a program of its own, so that the benchmark can measure its memory.
//
//	SERVER udp|tcp SERVICES CLIENTS
//
// SERVICES is the number of sockets to listen on, CLIENTS the number of TCP
// connections to expect. A server prints a line "port N" for each socket and then
// "serving". After SIGUSR1 it returns unused memory to the kernel and prints
// "settled".
package serve

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// Buffer is the size of a read buffer in bytes: the largest payload of an Ethernet frame.
const Buffer = 1500

// udpBuffer is the size of the sockets' buffers in bytes. It is the same for all
// servers, and large enough for all requests in flight.
const udpBuffer = 4 << 20

// Arguments are those of the command line.
type Arguments struct {
	Network  string // "udp" or "tcp"
	Services int
	Clients  int
}

// Parse reads the arguments. It ends the process if they are wrong.
func Parse() Arguments {
	if len(os.Args) != 4 {
		fmt.Fprintf(os.Stderr, "usage: %s udp|tcp SERVICES CLIENTS\n", os.Args[0])
		os.Exit(2)
	}
	a := Arguments{Network: os.Args[1]}
	for i, to := range []*int{&a.Services, &a.Clients} {
		n, err := strconv.Atoi(os.Args[i+2])
		if err != nil {
			Fail("argument", err)
		}
		*to = n
	}
	return a
}

// Fail ends the process with a message.
func Fail(step string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", step, err)
	os.Exit(1)
}

// Listening prints the server's ports, and answers SIGUSR1 from then on.
func Listening(ports ...int) {
	buffers(len(ports))
	settle := make(chan os.Signal, 1)
	signal.Notify(settle, unix.SIGUSR1)
	go func() {
		for range settle {
			giveBack()
			fmt.Println("settled")
		}
	}()
	out := bufio.NewWriter(os.Stdout)
	for _, port := range ports {
		fmt.Fprintf(out, "port %d\n", port)
	}
	fmt.Fprintln(out, "serving")
	if err := out.Flush(); err != nil {
		Fail("print ports", err)
	}
}

// giveBack returns free memory to the kernel.
func giveBack() {
	// Twice, because the content of a sync.Pool survives one collection.
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	// The allocator keeps up to 64 free pages of 8 KiB for each processor and does not
	// return them. Use these pages up, so that the allocator takes others, which have
	// no memory behind them now.
	const pages = 128
	for range runtime.GOMAXPROCS(0) {
		var used [pages][]byte
		for i := range used {
			used[i] = make([]byte, 8<<10)
		}
		runtime.KeepAlive(used)
	}
	debug.FreeOSMemory()
}

// buffers enlarges the buffers of the process's UDP sockets, because not every peer
// has an option for that. It tries all descriptor numbers, because a list of the
// sockets would be garbage that counts as memory of the services.
func buffers(services int) {
	const others = 64 // of the runtime, the peer and the three standard ones
	for fd := range services + others {
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
			continue
		}
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, udpBuffer); err != nil {
				Fail("set socket buffer", err)
			}
		}
	}
}
