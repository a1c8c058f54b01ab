package filetree

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"time"
)

func appendMode(b []byte, info fs.FileInfo, mode fs.FileMode) []byte {
	b = binary.LittleEndian.AppendUint32(b, linuxMode(mode))
	return binary.LittleEndian.AppendUint64(b, uint64(info.ModTime().UnixNano()))
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

var errMalformed = errors.New("malformed stream of files")

// fields takes a record's fields from a batch.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n < 0 || n > len(f.b) {
		f.bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	taken := f.b[:n]
	f.b = f.b[n:]
	return taken
}

func (f *fields) uint32() uint32 { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) uint64() uint64 { return binary.LittleEndian.Uint64(f.take(8)) }
func (f *fields) data() []byte {
	n := f.uint32()
	if n > MaxBatch {
		f.bad = true
		return nil
	}
	return f.take(int(n))
}
func (f *fields) text() string { return string(f.data()) }
func (f *fields) mode() (fs.FileMode, time.Time) {
	return goMode(f.uint32()), time.Unix(0, int64(f.uint64()))
}
