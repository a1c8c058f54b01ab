// Package rawcall makes system calls on non-blocking descriptors. It hides the calls from Go's
// scheduler, which saves work in each call. A call that blocks would hold up all goroutines of its
// processor.
package rawcall

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slice makes a system call with four arguments: a descriptor, the elements of a slice, their number,
// and flags, as recvfrom(2) and sendmmsg(2) have. It returns the kernel's result. It repeats a call
// that a signal interrupts.
func Slice[T any](trap uintptr, fd int, s []T, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(s))),
			uintptr(len(s)), uintptr(flags), 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
