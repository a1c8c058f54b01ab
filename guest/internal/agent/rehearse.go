package agent

import (
	"net"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A Rehearsal is a port that no service has and an echo on it, so that an emulated processor has
// translated the way of a datagram, through the kernel and the program, before one comes that
// counts. One goroutine calls its methods.
type Rehearsal struct{ conn *net.UDPConn }

// Begin opens the port. Where there is none to be had, or no network to reach it by, it returns 0.
func (r *Rehearsal) Begin() (port int) {
	r.End()
	if packets, err := announcements(); err != nil || len(packets) == 0 {
		return 0
	}
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return 0
	}
	r.conn = conn
	go func() {
		buf := make([]byte, 1)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from) // one that is lost is asked for again
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// End closes the port, and its echo ends.
func (r *Rehearsal) End() {
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
}

// spareThreads are those that a restored machine need not start: one was seen to start before the
// agent's answer, and services may want others.
const spareThreads = 3

// Prepare has a program do now what each machine that is restored from this one would do first,
// while all that its processor runs is slow: create the threads that Go's scheduler wants when
// system calls take long, and make room on the heap.
func Prepare() {
	runtime.GC()
	makeThreads(spareThreads)
}

// makeThreads has so many goroutines run at once, each in a thread of its own, and returns the
// threads' numbers. Go keeps them.
func makeThreads(n int) (numbers []int) {
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
		numbers = append(numbers, <-started)
	}
	close(leave)
	done.Wait()
	return numbers
}
