package udpbatch

import "golang.org/x/sys/unix"

// Watch calls see with the number of datagrams in each message that Send passes to
// the kernel, in order. If see returns an errno, the message is refused.
func (b *Batch) Watch(see func(datagrams int) unix.Errno) {
	b.sendmmsg = func(fd int, h []mmsghdr) (int, unix.Errno) {
		for i := range h {
			if errno := see(int(h[i].Iovlen)); errno != 0 {
				if i == 0 {
					return 0, errno
				}
				return sendmmsg(fd, h[:i]) // like the kernel, which reports the refusal in the next call
			}
		}
		return sendmmsg(fd, h)
	}
}
