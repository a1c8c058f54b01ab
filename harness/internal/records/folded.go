package records

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// foldedLines writes lines to a file, and counts a line that equals the one before it instead of writing it
// again. A device of QEMU may print a line for each packet of a guest.
type foldedLines struct {
	file io.Writer

	mu      sync.Mutex
	last    []byte // the last complete line that was written; nil if it was longer than maxFolded
	line    []byte // the first maxFolded+1 bytes of the unfinished line
	passed  bool   // the unfinished line differs from the last one, and its bytes have been written
	repeats int    // how often the last line came again
	buf     []byte
}

const maxFolded = 4 << 10 // bytes; a longer line is written each time

func (f *foldedLines) Write(text []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = f.buf[:0]
	for part := range bytes.Lines(text) {
		f.add(part)
	}
	if len(f.buf) > 0 {
		if _, err := f.file.Write(f.buf); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}

// add takes a part of a line, and appends to buf the bytes that it does not hold back.
func (f *foldedLines) add(part []byte) {
	held := len(f.line) // unless the line has passed: its bytes that were held back
	f.line = append(f.line, part[:min(len(part), maxFolded+1-len(f.line))]...)
	ended := part[len(part)-1] == '\n'
	switch {
	case f.passed:
		f.buf = append(f.buf, part...)
	case ended && bytes.Equal(f.line, f.last):
		f.repeats++
		f.line = f.line[:0]
		return
	case !ended && bytes.HasPrefix(f.last, f.line):
		return
	default:
		f.buf = append(f.notice(), f.line[:held]...)
		f.buf = append(f.buf, part...)
		f.repeats, f.passed = 0, true
	}
	if ended {
		f.last, f.passed = append(f.last[:0], f.line...), false
		if len(f.line) > maxFolded {
			f.last = nil
		}
		f.line = f.line[:0]
	}
}

// notice returns buf with the number of repeats.
func (f *foldedLines) notice() []byte {
	if f.repeats == 0 {
		return f.buf
	}
	times := "once more"
	if f.repeats > 1 {
		times = fmt.Sprint(f.repeats, " more times")
	}
	return fmt.Appendf(f.buf, "[guesthouse: the line above came %s]\n", times)
}

// pending returns the count of repeats and the bytes that are held back.
func (f *foldedLines) pending() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unwritten()
}

func (f *foldedLines) unwritten() []byte {
	f.buf = f.buf[:0]
	text := f.notice()
	if !f.passed {
		text = append(text, f.line...)
	}
	return bytes.Clone(text)
}

// flush writes the count of repeats and the bytes that are held back.
func (f *foldedLines) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text := f.unwritten(); len(text) > 0 {
		f.file.Write(text) // a log file never fails: see logFile
	}
	f.last, f.line, f.repeats, f.passed = nil, f.line[:0], 0, len(f.line) > 0
}
