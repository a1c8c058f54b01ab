package records

import (
	"bytes"
	"fmt"
	"os"
	"slices"
)

// A boundedFile is a log of bounded size, although a guest may write to it without end. It keeps the
// beginning and the newest part, and a line between them says how many bytes are left out. After every
// Write the file is complete, so a kill loses nothing that was written before.
type boundedFile struct {
	file *os.File
	max  int64 // bytes of the file; the beginning takes half of them

	size    int64 // bytes of the file
	notice  int64 // bytes of the line that says how many bytes are left out
	omitted int64 // bytes that are left out
}

const (
	logLimit    = 64 << 20 // bytes in each log of a record but qemu.stderr
	stderrLimit = 1 << 20  // bytes in qemu.stderr; QEMU prints little that is not repeated
	keptOfTail  = 64 << 10 // bytes of the newest part that beginTail keeps
)

func (b *boundedFile) Write(text []byte) (n int, err error) {
	for part := range slices.Chunk(text, int(b.max/4)) {
		if err := b.append(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// append writes text, which is at most a quarter of max.
func (b *boundedFile) append(text []byte) error {
	if b.size+int64(len(text)) > b.max {
		if err := b.beginTail(); err != nil {
			return err
		}
	}
	n, err := b.file.WriteAt(text, b.size)
	b.size += int64(n)
	return err
}

// beginTail empties the newest part, except for its last lines.
func (b *boundedFile) beginTail() error {
	head := b.max / 2
	tail := make([]byte, min(keptOfTail, b.max/8))
	if _, err := b.file.ReadAt(tail, b.size-int64(len(tail))); err != nil {
		return err
	}
	if nl := bytes.IndexByte(tail, '\n'); nl >= 0 {
		tail = tail[nl+1:] // from the start of a line
	}
	b.omitted += b.size - b.notice - head - int64(len(tail))
	notice := fmt.Appendf(nil, "\n[guesthouse: %d bytes are left out here: a log keeps its first %d and the newest]\n", b.omitted, head)
	if err := b.file.Truncate(head); err != nil {
		return err
	}
	b.size, b.notice = head, int64(len(notice))
	n, err := b.file.WriteAt(append(notice, tail...), head)
	b.size += int64(n)
	return err
}

func (b *boundedFile) Close() error { return b.file.Close() }
