// Spins is a guest that spins after a datagram on UDP port 4242. Nothing else in the guest runs from
// then on, not even its agent.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		// Otherwise the kernel reserves 5 % of the time for other processes.
		if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0); err != nil {
			return err
		}
		conn, err := net.ListenPacket("udp", ":4242")
		if err != nil {
			return err
		}
		go func() {
			conn.ReadFrom(make([]byte, 1))
			spin()
		}()
		return nil
	})
}

func spin() {
	runtime.LockOSThread()
	priority := int32(99)
	if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&priority))); errno != 0 {
		fmt.Println(errno)
		return
	}
	fmt.Println("spins")
	for turns := uint64(0); ; {
		turns++
	}
}
