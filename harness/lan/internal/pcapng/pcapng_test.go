package pcapng

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness/lan/internal/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type packet struct {
	data    string
	comment string
	flags   pcapgo.NgEpbFlag
}

// read reads all packets of a file.
func read(t *testing.T, from io.Reader) (all []packet, info pcapgo.NgSectionInfo) {
	r, err := pcapgo.NewNgReader(from, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	require.Equal(t, layers.LinkTypeEthernet, r.LinkType())
	for {
		data, at, options, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			return all, r.SectionInfo()
		}
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at.Timestamp, time.Hour)
		p := packet{data: string(data)}
		if len(options.Comments) > 0 {
			p.comment = options.Comments[0]
		}
		if options.Flags != nil {
			p.flags = options.Flags.Direction
		}
		all = append(all, p)
	}
}

func TestAFileHasFramesAndTheirFates(t *testing.T) {
	var b bytes.Buffer
	f, err := New(&b, "server", "seed 7")
	require.NoError(t, err)
	f.Write(segment.Event{Direction: segment.Up, Number: 0, Frame: []byte("first frame")})
	f.Write(segment.Event{Direction: segment.Down, Number: 5, Frame: []byte("second"), Fate: "lost in a burst"})
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	f.Write(segment.Event{Frame: []byte("late")})
	all, info := read(t, &b)
	require.Equal(t, []packet{
		{"first frame", "", pcapgo.NgEpbFlagDirectionOutbound},
		{"second", "frame 5 down: lost in a burst", pcapgo.NgEpbFlagDirectionInbound},
	}, all)
	require.Equal(t, "seed 7", info.Comment)
}

// A reader sees whole blocks at any time, and each frame soon. So the file of a killed process can be read.
func TestTheFileIsReadableAtAnyTime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "net.pcapng")
	to, err := os.Create(name)
	require.NoError(t, err)
	defer to.Close()
	f, err := New(to, "server", "")
	require.NoError(t, err)
	defer f.Close()
	count := func() int {
		from, err := os.Open(name)
		require.NoError(t, err)
		defer from.Close()
		all, _ := read(t, from)
		return len(all)
	}
	for i := range 1000 { // several buffers
		f.Write(segment.Event{Frame: make([]byte, 1+i)})
		if i%100 == 0 {
			count()
		}
	}
	require.Eventually(t, func() bool { return count() == 1000 }, 30*time.Second, 10*time.Millisecond)
	f.Write(segment.Event{Frame: []byte("x"), Fate: "lost"})
	require.Equal(t, 1001, count(), "a frame with a fault is there at once")
}

type fullDisk struct{ room int }

var errFull = errors.New("no space")

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.room -= len(b); d.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestAFullDiskIsReported(t *testing.T) {
	_, err := New(&fullDisk{}, "server", "")
	require.ErrorIs(t, err, errFull)
	f, err := New(&fullDisk{room: 1000}, "server", "")
	require.NoError(t, err)
	for range 10 {
		f.Write(segment.Event{Frame: make([]byte, 500), Fate: "lost"})
	}
	require.ErrorIs(t, f.Close(), errFull)
}
