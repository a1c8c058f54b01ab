package netstack

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A wire connects two stacks, and keeps the frames of the first one.
type wire struct {
	near, far *Stack
	at        [2]netip.Addr // of far

	mu     sync.Mutex
	frames [][]byte
	bursts int // calls that sent more than one frame
	sent   chan struct{}
}

func newWire(t *testing.T) *wire {
	w := &wire{sent: make(chan struct{}, 1)}
	stack := func(last byte, send func(frames ...[]byte)) *Stack {
		v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 24)
		v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: last}), 64)
		s, err := New([6]byte{2, 0, 0, 0, 0, last}, []netip.Prefix{v4, v6}, send)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(net.ErrClosed) })
		w.at = [2]netip.Addr{v4.Addr(), v6.Addr()}
		return s
	}
	w.near = stack(1, func(frames ...[]byte) {
		w.mu.Lock()
		if len(frames) > 1 {
			w.bursts++
		}
		for _, f := range frames {
			w.frames = append(w.frames, bytes.Clone(f))
		}
		w.mu.Unlock()
		w.far.Deliver(frames...)
		select {
		case w.sent <- struct{}{}:
		default:
		}
	})
	w.far = stack(2, func(frames ...[]byte) { w.near.Deliver(frames...) })
	return w
}

// acknowledgments returns how many frames of the first stack are only an acknowledgment.
func (w *wire) acknowledgments() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if ip := header.IPv4(f[header.EthernetMinimumSize:]); f[12] == 8 && f[13] == 0 && ip.TransportProtocol() == header.TCPProtocolNumber {
			if tcp := header.TCP(ip.Payload()); tcp.Flags() == header.TCPFlagAck && len(tcp.Payload()) == 0 {
				n++
			}
		}
	}
	return n
}

// connect connects the stacks with each other.
func (w *wire) connect(t *testing.T, family int) (near, far net.Conn) {
	l, err := w.far.ListenTCP(Both, netip.AddrPortFrom(netip.Addr{}, 4242))
	require.NoError(t, err)
	defer l.Close()
	near, err = w.near.DialTCP(context.Background(), netip.AddrPortFrom(w.at[family], 4242))
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// Much data leaves in bursts of frames that any card takes. The other stack computes all checksums itself.
func TestMuchDataLeavesInBursts(t *testing.T) {
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			near, far := w.connect(t, family)
			data := make([]byte, 3<<20)
			for i := range data {
				data[i] = byte(i ^ i>>8 ^ i>>16)
			}
			var got []byte
			done := make(chan error)
			go func() {
				var err error
				got, err = io.ReadAll(far)
				done <- err
			}()
			_, err := near.Write(data)
			require.NoError(t, err)
			require.NoError(t, near.(*tcpConn).CloseWrite())
			require.NoError(t, <-done)
			require.True(t, bytes.Equal(data, got))
			w.mu.Lock()
			defer w.mu.Unlock()
			require.NotZero(t, w.bursts)
			pushed := 0
			for _, f := range w.frames {
				require.LessOrEqual(t, len(f), mtu+header.EthernetMinimumSize)
				if ip := header.IPv4(f[header.EthernetMinimumSize:]); f[12] == 8 && f[13] == 0 {
					require.True(t, ip.IsChecksumValid())
					if tcp := header.TCP(ip.Payload()); tcp.Flags().Contains(header.TCPFlagPsh) {
						pushed++
					}
				}
			}
			require.Less(t, pushed, len(w.frames)/2, "only the last frame of a burst is pushed")
		})
	}
}
