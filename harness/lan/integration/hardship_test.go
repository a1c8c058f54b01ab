package integration

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/lan"
	"guesthouse.example/harness/lan/internal/cabletest"
)

// floodEnv is the number of frames of the flood. The nightly run sends a million, which takes longer than the other
// tests may.
const floodEnv = "GUESTHOUSE_TEST_FLOOD"

// onLan restores or boots the echo guest on a lan.
func onLan(t *testing.T, l *lan.Lan, name string) *harnesstest.Machine {
	t.Helper()
	spec := harnesstest.Spec(t, "x86_64", echoGuest)
	spec.Name, spec.Net = name, []harness.Network{l}
	return harnesstest.Boot(t, spec)
}

// A lan and its guests survive what links, guests and QEMU can do to them. One pair of machines bears all of it, and the
// lan's end comes last.
func TestALanBearsHardship(t *testing.T) {
	l := newLan(t, lan.Config{Seed: 11})
	server, witness := onLan(t, l, "server"), onLan(t, l, "witness")
	answer := func(t *testing.T, m *harnesstest.Machine) {
		t.Helper()
		echo(t, m.Dial("tcp6", 4242), []byte("still here"))
	}

	t.Run("a link that loses, reorders and duplicates alters no byte of a stream", func(t *testing.T) {
		bad := lan.Faults{Loss: 0.3, Reorder: 0.2, ReorderFrames: 4, Duplicate: 0.2}
		require.NoError(t, l.Link("server").SetFaults(lan.Both, bad))
		sent := make([]byte, 16<<10)
		for i := range sent {
			sent[i] = byte(i * i >> 5)
		}
		echo(t, server.Dial("tcp", 4242), sent)
		require.NoError(t, l.Link("server").SetFaults(lan.Both, lan.Faults{}))
		for _, d := range []lan.Direction{lan.Up, lan.Down} {
			s := l.Link("server").Stats(d)
			require.NotZero(t, s.Lost)
			require.NotZero(t, s.Reordered+s.Duplicated)
		}
	})

	t.Run("a partition heals", func(t *testing.T) {
		conn := server.Dial("tcp", 4242)
		echo(t, conn, []byte("before"))
		l.Partition([]string{"host"}, []string{"server"})
		before := l.Link("server").Stats(lan.Down).Frames
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := l.Ping(ctx, "server")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = conn.Write([]byte("in between"))
		require.NoError(t, err)
		require.Equal(t, before, l.Link("server").Stats(lan.Down).Frames)
		witness.Output("ping", "-w", "30000", "-c", "1", "server") // they are on the same side
		l.Heal()
		got := make([]byte, len("in between"))
		_, err = io.ReadFull(conn, got)
		require.NoError(t, err)
		require.Equal(t, "in between", string(got))
	})

	t.Run("a stopped guest holds up nobody", func(t *testing.T) {
		pid := server.Machine.Result().PID
		require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
		defer unix.Kill(pid, unix.SIGCONT)
		conn := server.Dial("udp", 4242)
		payload := make([]byte, 1400)
		for range 10_000 { // more than all queues on the way hold
			_, err := conn.Write(payload)
			require.NoError(t, err)
		}
		answer(t, witness)
		require.NoError(t, unix.Kill(pid, unix.SIGCONT))
		answer(t, server)
	})

	t.Run("a flood kills and fills nothing", func(t *testing.T) {
		flood(t, l, server)
		answer(t, server)
		answer(t, witness)
	})

	t.Run("a machine that is killed leaves the lan", func(t *testing.T) {
		spec := harnesstest.Spec(t, "x86_64", echoGuest)
		spec.Name, spec.Net = "victim", []harness.Network{l}
		m, err := harness.Boot(t.Context(), spec)
		require.NoError(t, err)
		defer m.Close()
		conn, err := m.Dial(t.Context(), "tcp6", 4242)
		require.NoError(t, err)
		echo(t, conn, []byte("alive"))
		require.NoError(t, unix.Kill(m.Result().PID, unix.SIGKILL))
		_, err = conn.Read(make([]byte, 1))
		var lost *net.OpError
		require.ErrorAs(t, err, &lost)
		require.False(t, lost.Timeout())
		require.Error(t, m.Wait(t.Context()))
		require.NoError(t, m.Close())
		require.Nil(t, l.Lookup("victim"))
		answer(t, server)
	})

	t.Run("the end of the lan ends every connection with an error", func(t *testing.T) {
		var conns []net.Conn
		for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
			conn := server.Dial(network, 4242)
			echo(t, conn, []byte(network))
			conns = append(conns, conn)
		}
		ended := make(chan error, len(conns))
		for _, conn := range conns {
			go func() {
				_, err := conn.Read(make([]byte, 1))
				ended <- err
			}()
		}
		require.NoError(t, l.Close())
		for range conns {
			require.ErrorIs(t, <-ended, lan.ErrClosed)
		}
		server.Output("ip", "addr") // the machine goes on
	})
}

// flood sends a machine datagrams for a port that nobody listens on, and for the echo service, from a card that
// does not read the answers.
func flood(t *testing.T, l *lan.Lan, m *harnesstest.Machine) {
	frames := 50_000
	if text := os.Getenv(floodEnv); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		frames = n
	}
	line, err := l.Join("flooder")
	require.NoError(t, err)
	defer line.Close(nil)
	end, card := cabletest.New(t)
	require.NoError(t, line.Connect(harness.Cable{Conn: end}))

	to := l.Lookup("server")[0].As4()
	from := line.Addresses()[0].Addr().As4()
	heap := heapInUse()
	const batch = 100
	for sent := 0; sent < frames; sent += batch {
		var out []byte
		for i := range batch {
			frame := datagram(line.MAC(), from, to, [2]uint16{4242, 9}[i%2])
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(frame))), frame...)
		}
		_, err := card.Write(out)
		require.NoError(t, err)
	}
	// What the card sent is on the lan when a last datagram, which the test receives, has crossed it.
	last, err := l.ListenPacket("udp4", ":5000")
	require.NoError(t, err)
	defer last.Close()
	host := l.Lookup(lan.HostName)[0].As4()
	frame := datagram(line.MAC(), from, host, 5000)
	_, err = card.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	require.NoError(t, err)
	require.NoError(t, last.SetReadDeadline(time.Now().Add(10*harnesstest.Within)))
	_, _, err = last.ReadFrom(make([]byte, 100))
	require.NoError(t, err)
	require.EqualValues(t, frames+1, l.Link("flooder").Stats(lan.Up).Frames)
	const most = 16 << 20
	require.Less(t, heapInUse(), heap+most)
}

func heapInUse() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// datagram returns the frame of a UDP datagram without a checksum.
func datagram(mac net.HardwareAddr, from, to [4]byte, port uint16) []byte {
	const data = 18
	f := append([]byte{0x02, 0x67, to[0], to[1], to[2], to[3]}, mac...)
	f = append(f, 8, 0, 0x45, 0, 0, 28+data, 0, 0, 0, 0, 64, 17, 0, 0)
	f = append(append(f, from[:]...), to[:]...)
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	for sum>>16 > 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[24:], ^uint16(sum))
	f = binary.BigEndian.AppendUint16(f, 7)
	f = binary.BigEndian.AppendUint16(f, port)
	f = binary.BigEndian.AppendUint16(f, 8+data)
	return append(f, make([]byte, 2+data)...)
}
