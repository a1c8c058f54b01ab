package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// restore makes this machine another one than that it was saved from.
func (a *Agent) restore(r wire.Restore) error {
	if err := addEntropy(a.random, r.Entropy); err != nil {
		return err
	}
	now := unix.NsecToTimespec(r.Now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set the clock to %s: %w", r.Now.UTC(), os.NewSyscallError("clock_settime", err))
	}
	a.identity.write(r.Boot)
	return nil
}

// addEntropy gives the kernel random bytes, through its device, and makes it use them at once.
func addEntropy(fd int, random []byte) error {
	// struct rand_pool_info: bits, bytes, and these
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(random)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(random)))
	if err := ioctl(fd, unix.RNDADDENTROPY, append(info, random...)); err != nil {
		return fmt.Errorf("entropy: %w", os.NewSyscallError("RNDADDENTROPY", err))
	}
	if err := ioctl(fd, unix.RNDRESEEDCRNG, nil); err != nil {
		return fmt.Errorf("entropy: %w", os.NewSyscallError("RNDRESEEDCRNG", err))
	}
	return nil
}

// ioctl passes a structure; x/sys has no function for those of random(4). None of them waits, so the
// scheduler need not hear of it and start a thread.
func ioctl(fd int, request uint, arg []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	if errno != 0 {
		return errno
	}
	return nil
}
