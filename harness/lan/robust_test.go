package lan_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan"
)

// hostile returns a frame to the host that is wrong somewhere: a header of each protocol, with random bytes over it,
// and of any length.
func hostile(r *rand.Rand, l *lan.Lan, from []byte) []byte {
	host, host6 := l.Lookup("host")[0].As4(), l.Lookup("host")[1].As16()
	f := append([]byte{0x02, 0x67, host[0], host[1], host[2], host[3]}, from...)
	body := make([]byte, 20+r.IntN(1500))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	transport := []byte{1, 6, 17, 58}[r.IntN(4)]
	switch r.IntN(4) {
	case 0:
		f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, byte(r.IntN(4))) // ARP
	case 1:
		f = append(f, 8, 0)
		ip := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, transport, 0, 0, 192, 0, 2, byte(1 + r.IntN(3))}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+r.IntN(len(body)+40)))
		f = append(append(f, ip...), host[:]...)
		sum := uint32(0)
		for i := 14; i < 34; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(f[i:]))
		}
		for sum>>16 > 0 {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(f[24:], ^uint16(sum))
	case 2:
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(r.IntN(len(body)+40)))
		source := host6
		source[15] = byte(r.IntN(4))
		f = append(append(append(f, []byte{transport, 0, 43, 44, 60}[r.IntN(5)], 255), source[:]...), host6[:]...)
	default:
		f = append(f, byte(r.Uint32()), byte(r.Uint32()))
	}
	f = append(f, body...)
	for range r.IntN(4) {
		f[r.IntN(len(f))] = byte(r.Uint32())
	}
	return f[:1+r.IntN(len(f))]
}

// Frames that are wrong in any way harm neither the host nor the other machines, and leave nothing behind.
func TestMalformedFramesHarmNobody(t *testing.T) {
	l := newLan(t, lan.Config{})
	bad, good := join(t, l, "bad"), join(t, l, "good")
	echoTCP(t, good)
	_, err := l.Ping(within(t), "good")
	require.NoError(t, err)
	routines := runtime.NumGoroutine()
	link := l.Link("bad")
	r := rand.New(rand.NewPCG(1, 2))
	const frames = 50_000
	for range frames {
		link.Send(hostile(r, l, bad.MAC()))
	}
	require.NotZero(t, link.Stats(lan.Up).Frames)
	c, err := l.Dial(within(t), "tcp", "good:4242")
	require.NoError(t, err)
	echo(t, c, "still here")
	require.NoError(t, c.Close())
	_, err = l.Ping(within(t), "good")
	require.NoError(t, err)
	require.Less(t, runtime.NumGoroutine(), routines+100)
}

func FuzzFrame(f *testing.F) {
	l, err := lan.New(lan.Config{})
	require.NoError(f, err)
	f.Cleanup(func() { l.Close() })
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		f.Add(hostile(r, l, []byte{2, 0x67, 192, 0, 2, 1}))
	}
	f.Fuzz(func(t *testing.T, frame []byte) { l.Link("bad").Send(frame) })
}
