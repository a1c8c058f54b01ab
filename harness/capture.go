package harness

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"guesthouse.example/harness/internal/until"
)

// A captureFile is a file of the record with the frames of a card. Others can read it while it grows.
type captureFile struct {
	file *os.File

	mu    sync.Mutex
	grown chan struct{} // closed and replaced by each Write
	ended bool
}

// newCapture begins a file of the record.
func (m *Machine) newCapture(name string) (*captureFile, error) {
	file, err := os.Create(filepath.Join(m.Dir(), name))
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	c := &captureFile{file: file, grown: make(chan struct{})}
	m.captures = append(m.captures, c)
	return c, nil
}

func (c *captureFile) Write(p []byte) (int, error) {
	n, err := c.file.Write(p)
	c.wake(false)
	return n, err
}

func (c *captureFile) Close() error {
	c.wake(true)
	return c.file.Close()
}

func (c *captureFile) wake(ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.grown)
	c.grown = make(chan struct{})
	c.ended = c.ended || ended
}

// FollowCapture writes the capture of a card's frames to w, from its first byte on and then as it grows, until the
// machine ends. The first card is 0. The capture is a pcap file with [Spec].Capture, and a pcapng file with [Spec].Net.
// A writer that is slow holds up neither the machine nor its network. When ctx ends during a Write, FollowCapture gives
// that Write another second and then returns without it.
func (m *Machine) FollowCapture(ctx context.Context, card int, w io.Writer) error {
	if card < 0 || card >= len(m.captures) {
		return fmt.Errorf("capture of card %d: the machine has captures of %d cards: set Spec.Capture", card, len(m.captures))
	}
	c := m.captures[card]
	file, err := os.Open(c.file.Name()) // it stays readable when a temporary record is removed
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		c.mu.Lock()
		grown, ended := c.grown, c.ended
		c.mu.Unlock()
		for ctx.Err() == nil {
			part := make([]byte, 64<<10) // a Write that FollowCapture has left may still read it
			n, err := file.Read(part)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			wrote := make(chan error, 1)
			go func() {
				_, err := w.Write(part[:n])
				wrote <- err
			}()
			if err, _ := until.Receive(ctx, wrote, time.Second); err != nil {
				return err
			}
		}
		if ended && ctx.Err() == nil {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// captureUserNetwork begins the capture of the card on QEMU's user network. The channel is closed when the capture is
// complete, after the end of QEMU.
func (m *Machine) captureUserNetwork() error {
	if !m.plan.qemu.Capture {
		return nil
	}
	c, err := m.newCapture("net0.pcap")
	if err != nil {
		m.vm.Process.Capture.Close()
		return err
	}
	m.captured = make(chan struct{})
	go func() {
		defer close(m.captured)
		if err := copyPcap(c, m.vm.Process.Capture); err != nil {
			m.vm.Record.Fail("net0.pcap", err)
		}
		m.vm.Process.Capture.Close()
	}()
	return nil
}

const (
	pcapHeader   = 24      // bytes of a pcap file before the first frame
	frameHeader  = 16      // bytes before each frame: the time in two words, the bytes that follow, the bytes of the frame
	longestFrame = 1 << 20 // QEMU cuts frames to 64 KiB
	captureLimit = 256 << 20
)

// copyPcap copies the pcap file that QEMU writes, in whole frames. The time of a frame becomes the host's: QEMU gives a
// restored machine's frames times after those at which the machine was saved. After captureLimit bytes, copyPcap drops
// what follows, because a guest may send without end. It reads until QEMU ends, because QEMU waits for a reader.
func copyPcap(to io.Writer, from io.Reader) error {
	defer io.Copy(io.Discard, from)
	r, w := bufio.NewReaderSize(from, 256<<10), bufio.NewWriterSize(to, 256<<10)
	buf := make([]byte, pcapHeader, frameHeader+64<<10)
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			return nil // QEMU has not begun
		}
		return err
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	for size := 0; size < captureLimit; size += len(buf) {
		if r.Buffered() < frameHeader {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		buf = buf[:frameHeader]
		if _, err := io.ReadFull(r, buf); err != nil {
			break // the end of QEMU, perhaps amid a frame
		}
		now, n := time.Now(), int(binary.NativeEndian.Uint32(buf[8:]))
		if n > longestFrame {
			return fmt.Errorf("QEMU wrote a frame of %d bytes", n)
		}
		binary.NativeEndian.PutUint32(buf, uint32(now.Unix()))
		binary.NativeEndian.PutUint32(buf[4:], uint32(now.Nanosecond()/1000))
		buf = append(buf, make([]byte, n)...)
		if _, err := io.ReadFull(r, buf[frameHeader:]); err != nil {
			break
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return w.Flush()
}
