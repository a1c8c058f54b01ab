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

// pair returns a socket pair: QEMU's end and the filter's.
func pair(t *testing.T) (qemu, filter *net.UnixConn) {
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
	var ends [3]*net.UnixConn // the filter's
	q.sent, ends[0] = pair(t)
	q.given, ends[1] = pair(t)
	q.seen, ends[2] = pair(t)
	f, err := Start(rules, ends[0], ends[1], ends[2])
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

func withLength(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

func send(t *testing.T, conn net.Conn, frame []byte) {
	t.Helper()
	_, err := conn.Write(withLength(frame))
	require.NoError(t, err)
}

// next returns the next frame that the filter returns to QEMU.
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

// reversed returns a frame with its source and destination swapped: from the network to the guest.
func reversed(f []byte) []byte {
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
	send(t, q.sent, answer) // the guest has received nothing from either destination
	send(t, q.sent, udp(outside, 1, 53))
	send(t, q.sent, tcp(outside, 80, flagSYN))
	refused := q.next(t)
	p, ok := parse(refused)
	require.True(t, ok)
	require.EqualValues(t, flagSYN|flagFIN, p.payload[tcpFlags], "libslirp resets the connection")

	send(t, q.seen, reversed(answer))
	send(t, q.sent, answer)
	require.Equal(t, answer, q.next(t))
	require.Equal(t, []string{"udp 192.0.2.2:50000", "udp 198.51.100.1:53", "tcp 198.51.100.1:80"}, f.Stopped())
}

// QEMU has written the guest's datagram when the guest answers it, but the filter may not have read
// that datagram yet.
func TestAnAnswerPassesBeforeItsQuestionIsRead(t *testing.T) {
	q, _ := start(t, none)
	for port := range uint16(2000) {
		answer := udp(gateway, 4242, 10000+port)
		send(t, q.seen, reversed(answer))
		send(t, q.sent, answer)
		require.Equal(t, answer, q.next(t), "client %d", port)
	}
}

// When Flush returns, QEMU can read every frame that it had written before the call and that may pass.
func TestFlushReturnsAllFramesWrittenBefore(t *testing.T) {
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
		require.Equal(t, len(withLength(ping)), n)
	}
	(*Filter)(nil).Flush()
}

func TestFragmentsOfAnAnswerPass(t *testing.T) {
	q, _ := start(t, none)
	question := fragment(reversed(udp(gateway, 4242, 50000)), 0, true)
	send(t, q.seen, question)
	first := fragment(udp(gateway, 4242, 50000), 0, true)
	second := fragment(frame(gateway, protoUDP, bytes.Repeat([]byte{7}, 100)), 185, false)
	send(t, q.sent, first)
	send(t, q.sent, second)
	require.Equal(t, first, q.next(t))
	require.Equal(t, second, q.next(t))
}

// A guest can make its card send frames that QEMU's network does not accept. The filter skips such a
// frame and no other.
func TestAFrameThatIsTooLongIsSkipped(t *testing.T) {
	q, _ := start(t, none)
	good := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	for _, size := range []int{maxFrame + 1, bufferSize, 1 << 20} {
		bad := make([]byte, size)
		copy(bad, good)
		send(t, q.sent, bad)
		send(t, q.sent, good)
		require.Equal(t, good, q.next(t), "after a frame of %d bytes", size)
	}
	longest := make([]byte, maxFrame)
	copy(longest, good)
	go q.sent.Write(withLength(longest))
	require.Equal(t, longest, q.next(t))
}

func TestFramesMayArriveByteByByte(t *testing.T) {
	q, _ := start(t, none)
	good := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	for _, b := range append(withLength(nil), withLength(good)...) {
		_, err := q.sent.Write([]byte{b})
		require.NoError(t, err)
	}
	require.Equal(t, good, q.next(t))
}

// QEMU may write frames without end while it reads none: the filter reads all of them, and queues a
// bounded number of bytes.
func TestTheFilterReadsWhileQEMUDoesNot(t *testing.T) {
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
	require.LessOrEqual(t, waiting, 4*maxQueued)
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
	for range 1000 { // more than the socket holds, so that deliver waits
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
		t.Fatal("the filter goes on after QEMU's end")
	}
	(*Filter)(nil).Wait()
	require.Empty(t, (*Filter)(nil).Stopped())
}

func TestFlowsAreBoundedAndTimeOut(t *testing.T) {
	var f flows
	now := time.Now()
	flowOf := func(i int) flow {
		return flow{netip.AddrPortFrom(guest, uint16(i>>16)), netip.AddrPortFrom(gateway, uint16(i))}
	}
	f.add(flowOf(0), now)
	require.True(t, f.known(flowOf(0), now.Add(flowTimeout-1)))
	require.True(t, f.known(flowOf(0), now.Add(2*flowTimeout-2)), "an answer renews the flow")
	require.False(t, f.known(flowOf(0), now.Add(4*flowTimeout)))
	for i := range 10 * maxFlows {
		f.add(flowOf(i), now)
		require.True(t, f.known(flowOf(i), now), "the newest is known")
		require.LessOrEqual(t, len(f.last), maxFlows)
	}
}

func TestStoppedDestinationsAreBounded(t *testing.T) {
	q, f := start(t, none)
	for port := range uint16(100) {
		for range 2 {
			send(t, q.sent, udp(outside, 1, 1000+port))
		}
	}
	ping := frame(gateway, protoICMP, []byte{8, 0, 0, 0})
	send(t, q.sent, ping)
	q.next(t)
	require.Len(t, f.Stopped(), maxStopped)
	require.Equal(t, fmt.Sprint("udp 198.51.100.1:", 1000+maxStopped-1), f.Stopped()[maxStopped-1])
}

// FuzzStream splits any bytes into frames. The frames do not depend on how reads divide the bytes.
func FuzzStream(f *testing.F) {
	f.Add(append(withLength([]byte("one")), withLength([]byte("two"))...), uint16(3))
	f.Add(append(binary.BigEndian.AppendUint32(nil, 1<<31), 1, 2, 3), uint16(1))
	f.Fuzz(func(t *testing.T, bytes []byte, cut uint16) {
		read := func(size int) (all []string) {
			var s stream
			for rest := bytes; len(rest) > 0; {
				n := copy(s.room(), rest[:min(size, len(rest))])
				rest = rest[n:]
				s.frames(n, func(frame []byte) { all = append(all, string(frame)) })
			}
			return all
		}
		require.Equal(t, read(bufferSize), read(int(cut)+1))
	})
}
