package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// reseed gives the guest new entropy, the host's time and a new boot identity after a save.
func (a *Agent) reseed(r wire.Restore) error {
	if err := addEntropy(a.random, r.Entropy); err != nil {
		return err
	}
	now := unix.NsecToTimespec(r.Now.UnixNano())
	// This call does not block, and Go's scheduler need not see it.
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		return fmt.Errorf("set the clock to %s: %w", r.Now.UTC(), os.NewSyscallError("clock_settime", errno))
	}
	a.identity.write(r.Boot)
	return nil
}

// reconfigure gives the guest the network of this machine, before its programs go on.
func (a *Agent) reconfigure(n wire.Network) error {
	if len(n.Cards) == 0 {
		return nil
	}
	if err := a.machine.Configure(n); err != nil {
		return err
	}
	_ = a.network.Prepare() // without announcements the other machines ask for the addresses when they need them
	return nil
}

// addEntropy adds random bytes to the kernel's entropy and reseeds its generator with them at once.
func addEntropy(fd int, random []byte) error {
	// struct rand_pool_info: the entropy in bits, the length in bytes, the bytes
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

// ioctl makes an ioctl call with a structure, because x/sys has no function for the requests of
// random(4). It makes a raw system call, because no request blocks and Go's scheduler need not start a
// thread for it.
func ioctl(fd int, request uint, arg []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	if errno != 0 {
		return errno
	}
	return nil
}
