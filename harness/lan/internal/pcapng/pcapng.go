// Package pcapng writes the frames of a link into a pcapng file while they pass. A comment at a frame says what the
// link did to it.
package pcapng

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"guesthouse.example/harness/lan/internal/segment"
)

const (
	// flushEvery is how old a frame can be before it is in the file. A flush for each frame would take up to 40 % of
	// the throughput.
	flushEvery = 100 * time.Millisecond

	bufferSize = 256 << 10

	// maxAround is more than a frame's block has besides the frame.
	maxAround = 1 << 10

	// maxSize bounds the file, because a guest may send without end. Later frames are not written.
	maxSize = 256 << 20
)

// A File is a pcapng file that is being written. Frames with a fault are in the file when Write returns.
type File struct {
	buffer *bufio.Writer

	mu      sync.Mutex
	w       *pcapgo.NgWriter
	err     error // the first one; the file then gets no more frames
	size    int64 // bytes of the frames, with room for what is around them
	pending bool  // flush runs soon
	timer   *time.Timer
	closed  bool
}

// New begins a file for the frames of a link. The comment is for the whole file.
func New(to io.Writer, link, comment string) (*File, error) {
	f := &File{buffer: bufio.NewWriterSize(to, bufferSize)}
	var err error
	f.w, err = pcapgo.NewNgWriterInterface(f.buffer,
		pcapgo.NgInterface{Name: link, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9},
		pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "guesthouse", Comment: comment}})
	if err == nil {
		err = f.flushNow()
	}
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return f, nil
}

// Write writes a frame with the present time.
func (f *File) Write(e segment.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size += int64(len(e.Frame) + maxAround/16); f.err != nil || f.closed || f.size > maxSize {
		return
	}
	flags := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound} // for the machine
	if e.Direction == segment.Up {
		flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	options := pcapgo.NgPacketOptions{Flags: flags}
	if e.Fate != "" {
		options.Comments = []string{fmt.Sprintf("frame %d %v: %s", e.Number, e.Direction, e.Fate)}
	}
	// The file grows by whole blocks, so a reader can read the file of a writer that was killed.
	if f.buffer.Available() < len(e.Frame)+maxAround {
		if f.err = f.buffer.Flush(); f.err != nil {
			return
		}
	}
	info := gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(e.Frame), Length: len(e.Frame)}
	if f.err = f.w.WritePacketWithOptions(info, e.Frame, options); f.err == nil {
		f.err = f.w.Flush() // into the buffer
	}
	if f.err != nil {
		return
	}
	if e.Fate != "" {
		f.err = f.flushNow()
		return
	}
	if !f.pending {
		f.pending = true
		if f.timer == nil {
			f.timer = time.AfterFunc(flushEvery, f.flush)
		} else {
			f.timer.Reset(flushEvery)
		}
	}
}

func (f *File) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = false
	if f.err == nil && !f.closed {
		f.err = f.flushNow()
	}
}

func (f *File) flushNow() error {
	if err := f.w.Flush(); err != nil {
		return err
	}
	return f.buffer.Flush()
}

// Close writes what is not yet in the file, and returns the first error of all writes. It does not close the writer.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	if !f.closed && f.err == nil {
		f.err = f.flushNow()
	}
	f.closed = true
	if f.err != nil {
		return fmt.Errorf("pcapng: %w", f.err)
	}
	return nil
}
