package udpbatch_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/udpbatch"
)

// routes lead to peers from an IPv6 socket or from an IPv4 socket.
var routes = map[string]struct{ from, to int }{
	"IPv6":        {unix.AF_INET6, unix.AF_INET6},
	"IPv4-mapped": {unix.AF_INET6, unix.AF_INET},
	"IPv4":        {unix.AF_INET, unix.AF_INET},
}

// peers returns a socket that can send to the peers, and peers' sockets and
// addresses, as the sender writes them.
func peers(t *testing.T, from, to, count int) (fd int, fds []int, addrs []netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(from, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	for range count {
		peer, at := socket(t, to)
		if from == unix.AF_INET6 {
			at = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
		}
		fds, addrs = append(fds, peer), append(addrs, at)
	}
	return fd, fds, addrs
}

// kernelJoins is false on a kernel before 4.18 and on kernels that imitate Linux. There
// all datagrams must arrive too, each sent as a message of its own.
func kernelJoins(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// datagram returns the nth datagram. Those of 2 bytes or more all differ.
func datagram(n, size int) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, size/2+1)[:size]
}

// received reads all datagrams that wait on the sockets, in order for each socket.
func received(t *testing.T, fds []int) [][]string {
	t.Helper()
	got := make([][]string, len(fds))
	b := udpbatch.New(8, 2000)
	for i, fd := range fds {
		for {
			msgs, err := b.Receive(fd)
			if err != nil {
				require.Equal(t, unix.EAGAIN, err)
				break
			}
			for _, m := range msgs {
				require.False(t, m.Truncated)
				got[i] = append(got[i], string(m.Data))
			}
		}
	}
	return got
}

// watch returns the numbers of datagrams in the messages that the batch sends.
func watch(b *udpbatch.Batch) *[]int {
	var messages []int
	b.Watch(func(n int) unix.Errno {
		messages = append(messages, n)
		return 0
	})
	return &messages
}

// plan lists what a test sends: the peer and the number of bytes.
type plan []struct{ peer, size int }

func (p plan) messages(addrs []netip.AddrPort) (msgs []udpbatch.Message, want [][]string) {
	msgs, want = make([]udpbatch.Message, len(p)), make([][]string, len(addrs))
	for i, d := range p {
		msgs[i].Data = datagram(i, d.size)
		msgs[i].SetAddr(addrs[d.peer])
		want[d.peer] = append(want[d.peer], string(msgs[i].Data))
	}
	return msgs, want
}

func repeat(count, size int) plan {
	p := make(plan, count)
	for i := range p {
		p[i].size = size
	}
	return p
}

var plans = []struct {
	name     string
	plan     plan
	messages []int // of how many datagrams each
}{
	{"64 of one size", repeat(64, 64), []int{64}},
	{"more than are joined", repeat(66, 64), []int{64, 2}},
	{"more bytes than are joined", repeat(60, 1232), []int{52, 8}},
	{"too large to join", repeat(3, 1233), []int{1, 1, 1}},
	{"a shorter last one", plan{{0, 9}, {0, 9}, {0, 8}, {0, 8}, {0, 9}}, []int{3, 1, 1}},
	{"empty ones", plan{{0, 9}, {0, 0}, {0, 0}, {0, 9}, {0, 9}, {0, 0}}, []int{1, 1, 1, 2, 1}},
	{"interleaved", plan{{0, 9}, {1, 9}, {0, 9}, {0, 9}, {2, 9}, {2, 3}, {2, 9}, {1, 9}, {1, 10}, {0, 10}, {0, 10}},
		[]int{1, 1, 2, 2, 1, 1, 1, 2}},
}

func TestJoinedDatagramsArriveAsTheyWere(t *testing.T) {
	for name, route := range routes {
		for _, p := range plans {
			t.Run(fmt.Sprint(name, "/", p.name), func(t *testing.T) {
				fd, fds, addrs := peers(t, route.from, route.to, 3)
				b := udpbatch.New(100, 1)
				messages := watch(b)
				msgs, want := p.plan.messages(addrs)
				sent, err := b.Send(fd, msgs)
				require.NoError(t, err)
				require.Equal(t, len(msgs), sent)
				require.Equal(t, want, received(t, fds))
				if kernelJoins(fd) {
					require.Equal(t, p.messages, *messages)
				} else {
					require.Len(t, *messages, len(msgs))
				}
			})
		}
	}
}

func TestRefusalEndsJoiningForGood(t *testing.T) {
	for name, route := range routes {
		for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.EMSGSIZE} {
			t.Run(fmt.Sprint(name, "/", errno), func(t *testing.T) {
				fd, fds, addrs := peers(t, route.from, route.to, 2)
				b := udpbatch.New(4, 1)
				refused, wantRefused := 0, 0
				if kernelJoins(fd) {
					wantRefused = 2 // reported once, at the head of the second call
				}
				b.Watch(func(n int) unix.Errno {
					if n == 1 {
						return 0
					}
					refused++
					return errno
				})
				// The first goes alone, so that the refusal comes in the middle.
				msgs, want := plan{{1, 9}, {0, 9}, {0, 9}, {0, 9}, {1, 9}, {1, 9}, {0, 9}}.messages(addrs)
				for range 2 {
					sent, err := b.Send(fd, msgs)
					require.NoError(t, err)
					require.Equal(t, len(msgs), sent)
					require.Equal(t, want, received(t, fds))
				}
				require.Equal(t, wantRefused, refused)
			})
		}
	}
}

// The kernel itself refuses to join the datagrams of a socket without checksums.
func TestTheKernelRefusesToJoin(t *testing.T) {
	fd, fds, addrs := peers(t, unix.AF_INET, unix.AF_INET, 1)
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
	b := udpbatch.New(8, 1)
	msgs, want := repeat(4, 64).messages(addrs)
	sent, err := b.Send(fd, msgs)
	require.NoError(t, err)
	require.Equal(t, 4, sent)
	require.Equal(t, want, received(t, fds))
}

// The refusal of an address does not end joining, and Send returns errors that are not
// about joining.
func TestOtherErrorsDoNotEndJoining(t *testing.T) {
	fd, fds, addrs := peers(t, unix.AF_INET6, unix.AF_INET6, 1)
	b := udpbatch.New(8, 1)
	nowhere := []netip.AddrPort{netip.AddrPortFrom(addrs[0].Addr(), 0)}
	msgs, _ := repeat(2, 64).messages(nowhere)
	sent, err := b.Send(fd, msgs)
	require.Zero(t, sent)
	require.Equal(t, unix.EINVAL, err)

	msgs, want := repeat(4, 64).messages(addrs)
	b.Watch(func(int) unix.Errno { return unix.EAGAIN })
	sent, err = b.Send(fd, msgs)
	require.Zero(t, sent)
	require.Equal(t, unix.EAGAIN, err)

	messages := watch(b)
	sent, err = b.Send(fd, msgs)
	require.NoError(t, err)
	require.Equal(t, 4, sent)
	require.Equal(t, want, received(t, fds))
	if kernelJoins(fd) {
		require.Equal(t, []int{4}, *messages)
	}
}
