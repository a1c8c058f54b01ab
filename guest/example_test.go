package guest_test

import (
	"bytes"
	crand "crypto/rand"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
	"guesthouse.example/guest/socketservice"
)

// The service is defined before Main starts the loop.
var upper = socketservice.Define("upper", serveUpper, 1)

// serveUpper answers a datagram in upper case.
func serveUpper(ev *socketservice.Event) {
	var buf [1500]byte
	n, from, err := unix.Recvfrom(int(ev.Fd), buf[:], 0)
	if err != nil {
		return
	}
	_ = unix.Sendto(int(ev.Fd), bytes.ToUpper(buf[:n]), 0, from)
}

// A guest that answers datagrams on port 4242. Example is its func main.
func Example() {
	guest.Main(func() error {
		fd, err := socketservice.ListenUDP(4242)
		if err != nil {
			return err
		}
		return upper.Register([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil)
	})
}

// A test learns from Machine.Event that the guest has measured something.
func ExampleEvent() {
	guest.Event("temperature 21.5")
}

// Each restored machine draws other random numbers. The seed comes from the kernel, which is
// reseeded by then; the state of every generator in the program is the one that was saved.
func ExampleOnRestore() {
	var numbers rand.ChaCha8
	reseed := func() {
		var seed [32]byte
		crand.Read(seed[:])
		numbers.Seed(seed)
	}
	reseed()
	guest.OnRestore(reseed)
}
