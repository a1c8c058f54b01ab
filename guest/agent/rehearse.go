package agent

import (
	"fmt"
	"net"
	"runtime"
	"sync"
)

// rehearse opens a port that no service has and sends back what comes there, so that
// an emulated processor has translated the way of a datagram, through the kernel and
// the program, before one comes that counts.
func (a *Agent) rehearse() (port int, err error) {
	a.endRehearsal()
	if !a.prepared {
		prepare()
		a.prepared = true
	}
	if a.rehearsal, err = net.ListenUDP("udp4", nil); err != nil {
		return 0, fmt.Errorf("rehearse: %w", err)
	}
	go func(conn *net.UDPConn) {
		buf := make([]byte, 1)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from) // one that is lost is asked for again
		}
	}(a.rehearsal)
	return a.rehearsal.LocalAddr().(*net.UDPAddr).Port, nil
}

// spareThreads: one was seen to start before the agent's answer, and services may want others.
const spareThreads = 3

// prepare has this program do now what each machine that is restored from this one would do first,
// while all that its processor runs is slow: create the threads that Go's scheduler wants when
// system calls take long, and make room on the heap.
func prepare() {
	runtime.GC()
	var here, done sync.WaitGroup
	leave := make(chan struct{})
	for range spareThreads {
		here.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // so that each has its own
			defer runtime.UnlockOSThread()
			here.Done()
			<-leave
		})
	}
	here.Wait()
	close(leave)
	done.Wait()
}

// endRehearsal closes the port, and its echo ends.
func (a *Agent) endRehearsal() {
	if a.rehearsal != nil {
		a.rehearsal.Close()
		a.rehearsal = nil
	}
}
