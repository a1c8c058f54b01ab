package qemuport

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness/lan/internal/cabletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func encoded(frames ...string) (b []byte) {
	for _, f := range frames {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

func TestFramesPassInBothDirections(t *testing.T) {
	near, far := cabletest.New(t)
	p, err := New(near)
	require.NoError(t, err)
	defer p.Close()
	got := make(chan string, 10)
	p.Start(func(frames ...[]byte) {
		for _, f := range frames {
			got <- string(f)
		}
	})
	_, err = far.Write(encoded("one", "", "three"))
	require.NoError(t, err)
	for _, want := range []string{"one", "", "three"} {
		require.Equal(t, want, <-got)
	}
	p.Write([]byte("four"))
	p.Write(nil) // no frame
	p.Write([]byte("five"))
	b := make([]byte, len(encoded("four", "five")))
	_, err = io.ReadFull(far, b)
	require.NoError(t, err)
	require.Equal(t, encoded("four", "five"), b)
}

// QEMU reads nothing while its guest is stopped. Write does not wait for it, and what QEMU reads later are complete
// frames in their order.
func TestAStoppedGuestDropsFrames(t *testing.T) {
	near, far := cabletest.New(t)
	p, err := New(near)
	require.NoError(t, err)
	const frames = 5000
	for i := range uint32(frames) {
		f := make([]byte, 1000)
		binary.BigEndian.PutUint32(f, i)
		p.Write(f)
	}
	require.NotZero(t, p.Dropped())
	expect := frames - int(p.Dropped())
	next := uint32(0)
	taken := 0
	err = Read(far, func(frames ...[]byte) {
		for _, f := range frames {
			require.Len(t, f, 1000)
			n := binary.BigEndian.Uint32(f)
			require.GreaterOrEqual(t, n, next)
			next = n + 1
			if taken++; taken == expect {
				p.Close()
			}
		}
	})
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, expect, taken)
	p.Write([]byte("after the end"))
	p.Close()
}

// QEMU gives its guest all frames of a read at once, so frames that come together have to leave together.
func TestFramesTravelTogether(t *testing.T) {
	near, far := cabletest.New(t)
	p, err := New(near)
	require.NoError(t, err)
	defer p.Close()
	p.Write([]byte("one"), nil, []byte("two"), make([]byte, maxFrame+1), []byte("three"))
	b := make([]byte, 100)
	n, err := far.Read(b)
	require.NoError(t, err)
	want := encoded("one", "two", "three")
	require.Equal(t, want, b[:n])

	var calls [][]string
	stream := append(want, 0, 0, 0, 9, 'c', 'u', 't')
	require.ErrorIs(t, Read(bytes.NewReader(stream), func(frames ...[]byte) {
		var got []string
		for _, f := range frames {
			got = append(got, string(f))
		}
		calls = append(calls, got)
	}), io.EOF)
	require.Equal(t, [][]string{{"one", "two", "three"}}, calls)
}

func TestALongFrameIsSkipped(t *testing.T) {
	stream := append(encoded("one"), encoded(string(make([]byte, maxFrame+1)), "two")...)
	var got []string
	require.ErrorIs(t, Read(bytes.NewReader(stream), func(frames ...[]byte) {
		for _, f := range frames {
			got = append(got, string(f))
		}
	}), io.EOF)
	require.Equal(t, []string{"one", "two"}, got)
}

func FuzzRead(f *testing.F) {
	f.Add(encoded("one", "", "two"))
	f.Add([]byte{0, 1, 255, 255, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		total := 0
		require.Error(t, Read(bytes.NewReader(stream), func(frames ...[]byte) {
			for _, f := range frames {
				total += lengthSize + len(f)
			}
		}))
		require.LessOrEqual(t, total, len(stream))
	})
}
