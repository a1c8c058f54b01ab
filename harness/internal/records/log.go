package records

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A logFile is a log of a record. Until it is opened, it is kept in memory.
//
// Write never fails, because an error would end the guest or QEMU. The logFile reports the first error to
// the record and writes nothing more.
type logFile struct {
	mu     sync.Mutex
	max    int64        // bytes of the file
	kept   []byte       // what was written before the file was opened
	file   *boundedFile // nil until it is opened
	failed func(error)  // called with the first error
	ended  bool         // an error has occurred, or the file is closed
}

// memoryLimit is how many bytes of a log are kept in memory. Bytes beyond the limit are lost. Only the
// record of a prefetched machine stays in memory for long.
const memoryLimit = 1 << 20

func (f *logFile) Write(text []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		f.kept = append(f.kept, text[:min(len(text), memoryLimit-len(f.kept))]...)
	} else if !f.ended {
		if _, err := f.file.Write(text); err != nil {
			f.ended = true
			f.failed(err)
		}
	}
	return len(text), nil
}

func (f *logFile) open(name string) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	f.file = &boundedFile{file: file, max: f.max}
	_, err = f.file.Write(f.kept)
	f.kept = nil
	return err
}

// inMemory returns what was written before the file was opened, or nil if the file is open.
func (f *logFile) inMemory() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		return nil
	}
	return append([]byte{}, f.kept...)
}

func (f *logFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return
	}
	// Some file systems report a full disk only here.
	if err := f.file.Close(); err != nil && !f.ended {
		f.failed(err)
	}
	f.ended = true
}

// timedLines writes text to a file with the seconds since start before each line.
type timedLines struct {
	file    io.Writer
	start   time.Time
	midLine bool
	buf     []byte
}

func (l *timedLines) Write(text []byte) (int, error) {
	l.buf = l.buf[:0]
	for line := range bytes.Lines(text) {
		if !l.midLine {
			l.buf = fmt.Appendf(l.buf, "[%11.6f] ", time.Since(l.start).Seconds())
		}
		l.buf = append(l.buf, line...)
		l.midLine = line[len(line)-1] != '\n'
	}
	if _, err := l.file.Write(l.buf); err != nil {
		return 0, err
	}
	return len(text), nil
}
