package records

import (
	"bytes"
	"fmt"
	"os"
	"slices"
)

// A boundedFile is a log that a guest may fill without end. It keeps its beginning and its newest part, and a
// line between them says how much is left out. The file is complete whenever the
// process dies.
type boundedFile struct {
	file *os.File
	max  int64 // bytes; the beginning has half of them

	size int64 // of the file
	line int64 // of these, the length of the line that says how much is left out
	left int64 // bytes that are left out
}

const (
	logLimit   = 64 << 20 // bytes in each log of a record
	keptOfTail = 64 << 10 // bytes of the newest part that stay when it begins anew
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

// beginTail empties the newest part except for its last lines.
func (b *boundedFile) beginTail() error {
	head := b.max / 2
	tail := make([]byte, min(keptOfTail, b.max/8))
	if _, err := b.file.ReadAt(tail, b.size-int64(len(tail))); err != nil {
		return err
	}
	if nl := bytes.IndexByte(tail, '\n'); nl >= 0 {
		tail = tail[nl+1:] // from the start of a line
	}
	b.left += b.size - b.line - head - int64(len(tail))
	said := fmt.Appendf(nil, "\n[guesthouse: %d bytes are left out here: a log keeps its first %d and the newest]\n", b.left, head)
	if err := b.file.Truncate(head); err != nil {
		return err
	}
	b.size, b.line = head, int64(len(said))
	n, err := b.file.WriteAt(append(said, tail...), head)
	b.size += int64(n)
	return err
}

func (b *boundedFile) Close() error { return b.file.Close() }
