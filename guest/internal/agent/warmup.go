package agent

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A WarmUpEcho echoes datagrams on a port of its own, so that the first datagram for a service is
// fast. By then, QEMU has translated the code of the kernel and the program that handles a datagram,
// and both have allocated memory. The zero value is ready for use. Only one goroutine at a time may
// call its methods.
type WarmUpEcho struct{ conn *net.UDPConn }

// Start opens a port and returns its number, or 0 if there is no network.
func (e *WarmUpEcho) Start() (port int) {
	e.Stop()
	if packets, err := announcements(); err != nil || len(packets) == 0 {
		return 0
	}
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return 0
	}
	e.conn = conn
	go func() {
		buf := make([]byte, 1)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from) // if this fails, the harness sends the datagram again
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// Stop closes the port.
func (e *WarmUpEcho) Stop() {
	if e.conn != nil {
		e.conn.Close()
		e.conn = nil
	}
}

// spareThreads is how many threads WarmUpRuntime starts. In a restored machine, the runtime would start
// one thread before the agent's answer, and services may need others.
const spareThreads = 3

// WarmUpRuntime does work that Go's runtime would otherwise do in each restored machine, where all
// code is slow at first. It starts threads, which the scheduler needs when system calls take long,
// frees memory on the heap, and makes the allocator take free memory of each size that small objects
// have.
func WarmUpRuntime() {
	runtime.GC()
	makeThreads(spareThreads)
	for size := 8; size <= maxPrimed; size += size/8&^7 + 8 {
		primed.bytes = make([]byte, size)
		primed.pointers = make([]*byte, size/8)
	}
	fmt.Fprint(io.Discard, "")                // package fmt keeps an object for the next call
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0)) // or the runtime would look for a change of it every second
}

// maxPrimed is the size in bytes of the largest object that the allocator is prepared for.
const maxPrimed = 2048

// primed keeps the compiler from putting the objects of WarmUpRuntime on the stack.
var primed struct {
	bytes    []byte
	pointers []*byte
}

// makeThreads runs n goroutines at once, each on a thread of its own, and returns the IDs of the
// threads. Go's runtime keeps the threads.
func makeThreads(n int) (ids []int) {
	started := make(chan int)
	leave := make(chan struct{})
	var done sync.WaitGroup
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started <- unix.Gettid()
			<-leave
		})
	}
	for range n {
		ids = append(ids, <-started)
	}
	close(leave)
	done.Wait()
	return ids
}
