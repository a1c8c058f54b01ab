package outbound

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const within = 10 * time.Second

// pair is a socket pair: QEMU's end and ours.
func pair(t *testing.T) (qemu, ours *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		require.NoError(t, err)
		file.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(within)))
		conns[i] = conn.(*net.UnixConn)
	}
	require.NoError(t, conns[1].SetDeadline(time.Time{}))
	return conns[0], conns[1]
}

// qemu is QEMU's side of a filter.
type qemu struct{ sent, given, seen *net.UnixConn }

func start(t *testing.T, rules Rules) (qemu, *Filter) {
	t.Helper()
	var q qemu
	var ours [3]*net.UnixConn
	q.sent, ours[0] = pair(t)
	q.given, ours[1] = pair(t)
	q.seen, ours[2] = pair(t)
	f, err := Start(rules, ours[0], ours[1], ours[2])
	require.NoError(t, err)
	t.Cleanup(func() {
		q.close()
		f.Wait()
	})
	return q, f
}

func (q qemu) close() {
	q.sent.Close()
	q.given.Close()
	q.seen.Close()
}

func whole(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

func send(t *testing.T, conn net.Conn, frame []byte) {
	t.Helper()
	_, err := conn.Write(whole(frame))
	require.NoError(t, err)
}

// next is the next frame that QEMU is given.
func (q qemu) next(t *testing.T) []byte {
	t.Helper()
	head := make([]byte, lengthSize)
	_, err := io.ReadFull(q.given, head)
	require.NoError(t, err)
	frame := make([]byte, binary.BigEndian.Uint32(head))
	_, err = io.ReadFull(q.given, frame)
	require.NoError(t, err)
	return frame
}

// from swaps source and destination: what the network sends to the guest.
func from(f []byte) []byte {
	f = bytes.Clone(f)
	ip, payload := f[etherHeader:], f[etherHeader+ipv4Header:]
	for i := range 4 {
		ip[12+i], ip[16+i] = ip[16+i], ip[12+i]
	}
	for i := range 2 {
		payload[i], payload[2+i] = payload[2+i], payload[i]
	}
	return f
}

func TestOnlyAnswersPass(t *testing.T) {
	q, f := start(t, none)
	answer := udp(gateway, 4242, 50000)
	send(t, q.sent, answer)              // nobody has asked
	send(t, q.sent, udp(outside, 1, 53)) // nor there
	send(t, q.sent, tcp(outside, 80, flagSYN))
	refused := q.next(t)
	p, ok := parse(refused)
	require.True(t, ok)
	require.EqualValues(t, flagSYN|flagFIN, p.payload[tcpFlags], "a connection comes as one that is reset")

	send(t, q.seen, from(answer))
	send(t, q.sent, answer)
	require.Equal(t, answer, q.next(t))
	require.Equal(t, []string{"udp 192.0.2.2:50000", "udp 198.51.100.1:53", "tcp 198.51.100.1:80"}, f.Stopped())
}

// QEMU has written what the guest answers, but nobody may have read it yet.
func TestNoAnswerOvertakesItsQuestion(t *testing.T) {
	q, _ := start(t, none)
	for port := range uint16(2000) {
		answer := udp(gateway, 4242, 10000+port)
		send(t, q.seen, from(answer))
		send(t, q.sent, answer)
		require.Equal(t, answer, q.next(t), "client %d", port)
	}
}

// What QEMU has written before is with it before whatever it is told next.
func TestAFlushGivesAllThatIsThere(t *testing.T) {
	q, f := start(t, none)
	ping := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	for range 2000 {
		send(t, q.sent, ping)
		f.Flush()
		n := 0
		raw, err := q.given.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), make([]byte, 1500)) }))
		require.NoError(t, err)
		require.Equal(t, len(whole(ping)), n)
	}
	(*Filter)(nil).Flush()
}

func TestLongDatagramsPassInPieces(t *testing.T) {
	q, _ := start(t, none)
	question := fragment(from(udp(gateway, 4242, 50000)), 0, true)
	send(t, q.seen, question)
	first := fragment(udp(gateway, 4242, 50000), 0, true)
	second := fragment(frame(gateway, protoUDP, bytes.Repeat([]byte{7}, 100)), 185, false)
	send(t, q.sent, first)
	send(t, q.sent, second)
	require.Equal(t, first, q.next(t))
	require.Equal(t, second, q.next(t))
}

// A guest can make its card send what QEMU's network does not take. It must not reach it, nor
// harm what follows.
func TestAFrameThatIsTooLongIsLeftOut(t *testing.T) {
	q, _ := start(t, none)
	good := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	for _, size := range []int{longestFrame + 1, bufferSize, 1 << 20} {
		bad := make([]byte, size)
		copy(bad, good)
		send(t, q.sent, bad)
		send(t, q.sent, good)
		require.Equal(t, good, q.next(t), "after one of %d bytes", size)
	}
	longest := make([]byte, longestFrame)
	copy(longest, good)
	go q.sent.Write(whole(longest))
	require.Equal(t, longest, q.next(t))
}

func TestFramesMayComeByteByByte(t *testing.T) {
	q, _ := start(t, none)
	good := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	for _, b := range append(whole(nil), whole(good)...) {
		_, err := q.sent.Write([]byte{b})
		require.NoError(t, err)
	}
	require.Equal(t, good, q.next(t))
}

// QEMU may write frames and read none meanwhile, for ever: it is never held up, and what waits
// for it is bounded.
func TestAQEMUThatDoesNotReadIsNotHeldUp(t *testing.T) {
	q, f := start(t, none)
	ping := frame(gateway, protoICMP, append([]byte{8}, make([]byte, 1400)...))
	const many = 20000 // 28 MB
	for range many {
		send(t, q.sent, ping)
		send(t, q.seen, ping)
	}
	f.given.mu.Lock()
	waiting := cap(f.given.waiting)
	f.given.mu.Unlock()
	require.LessOrEqual(t, waiting, 4*mostQueued)
	require.NoError(t, q.given.SetReadDeadline(time.Now().Add(within)))
	got := 0
	for ; got < 100; got++ {
		require.Equal(t, ping, q.next(t), "frames are whole")
	}
	send(t, q.sent, ping)
}

func TestTheFilterEndsWithQEMU(t *testing.T) {
	q, f := start(t, none)
	ping := frame(gateway, protoICMP, append([]byte{8}, make([]byte, 1400)...))
	for range 1000 { // so that one of its writers waits
		send(t, q.sent, ping)
	}
	q.close()
	ended := make(chan struct{})
	go func() {
		f.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(within):
		t.Fatal("it goes on")
	}
	(*Filter)(nil).Wait()
	require.Empty(t, (*Filter)(nil).Stopped())
}

func TestWhoIsAnsweredIsBoundedAndForgotten(t *testing.T) {
	var f flows
	now := time.Now()
	flowOf := func(i int) flow {
		return flow{netip.AddrPortFrom(guest, uint16(i>>16)), netip.AddrPortFrom(gateway, uint16(i))}
	}
	f.add(flowOf(0), now)
	require.True(t, f.known(flowOf(0), now.Add(flowLasts-1)))
	require.True(t, f.known(flowOf(0), now.Add(2*flowLasts-2)), "the answer counts too")
	require.False(t, f.known(flowOf(0), now.Add(4*flowLasts)))
	for i := range 10 * mostFlows {
		f.add(flowOf(i), now)
		require.True(t, f.known(flowOf(i), now), "the newest is known")
		require.LessOrEqual(t, len(f.last), mostFlows)
	}
}

func TestWhatWasStoppedIsBounded(t *testing.T) {
	q, f := start(t, none)
	for port := range uint16(100) {
		for range 2 {
			send(t, q.sent, udp(outside, 1, 1000+port))
		}
	}
	ping := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	send(t, q.sent, ping)
	q.next(t)
	require.Len(t, f.Stopped(), mostStopped)
	require.Equal(t, fmt.Sprint("udp 198.51.100.1:", 1000+mostStopped-1), f.Stopped()[mostStopped-1])
}

// FuzzStream takes any bytes apart, however they are cut: what comes out does not depend on that.
func FuzzStream(f *testing.F) {
	f.Add(append(whole([]byte("one")), whole([]byte("two"))...), uint16(3))
	f.Add(append(binary.BigEndian.AppendUint32(nil, 1<<31), 1, 2, 3), uint16(1))
	f.Fuzz(func(t *testing.T, bytes []byte, cut uint16) {
		read := func(at int) (all []string) {
			var s stream
			for rest := bytes; len(rest) > 0; {
				n := copy(s.room(), rest[:min(at, len(rest))])
				rest = rest[n:]
				s.frames(n, func(frame []byte) { all = append(all, string(frame)) })
			}
			return all
		}
		require.Equal(t, read(bufferSize), read(int(cut)+1))
	})
}
