// Package filetree sends files and directories as a stream, and writes them from it. The harness and the
// guest use both ends, to copy files into the guest and out of it.
//
// [Send] reads a file or a tree and returns the stream in batches, so that many small files share one
// transfer. A [Receiver] writes what the batches describe. It writes only below the directory in which the
// destination lies, whatever the stream says: a stream from a guest may be malicious. A file gets its name
// when it is complete and its checksum is right.
//
// A batch is a byte, which is 1 in the last batch and otherwise 0, and a sequence of records, which do not
// cross batches. A record is a byte that names its kind, and
// fields, little-endian; a string has its length, a uint32, before it.
//
//	'D' mode uint32, time int64, name   a directory; the records of its entries follow
//	'U'                                 the end of the directory
//	'L' name, target                    a symbolic link
//	'F' mode uint32, time int64, name   a regular file; its blocks follow
//	'B' offset int64, data              a block of the file; what lies between two blocks is a hole
//	'E' size int64, sum uint64          the end of the file
//
// The mode has the permissions and the setuid, setgid and sticky bits as Linux has them. The time is that
// of the last change, in nanoseconds since 1970. The name of the stream's first entry is empty: the
// receiver chooses it.
package filetree

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/bits"
	"syscall"
)

// MaxBatch is the greatest size in bytes of a batch.
const MaxBatch = 1 << 20

// MaxDepth is how many directories may lie in each other: both ends keep them open.
const MaxDepth = 1000

const (
	kindDir   = 'D'
	kindUp    = 'U'
	kindLink  = 'L'
	kindFile  = 'F'
	kindBlock = 'B'
	kindEnd   = 'E'
)

// IsLast reports whether a batch is the last one of its stream.
func IsLast(batch []byte) bool { return len(batch) > 0 && batch[0] == last }

// The first byte of a batch.
const (
	more = 0
	last = 1
)

// A checksum is of a file's blocks. It is made for emulated processors, on which SHA-256 takes longer than the
// transfer: it takes three instructions for eight bytes. It finds lost, repeated, swapped and changed bytes, not
// an attacker's.
type checksum uint64

const oddMultiplier = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio

// add adds a block.
func (c *checksum) add(offset int64, data []byte) {
	sum := uint64(*c)
	step := func(w uint64) { sum = bits.RotateLeft64((sum^w)*oddMultiplier, 29) }
	step(uint64(offset))
	for len(data) >= 8 {
		sum = bits.RotateLeft64((sum^binary.LittleEndian.Uint64(data))*oddMultiplier, 29)
		data = data[8:]
	}
	var rest [8]byte
	copy(rest[:], data)
	step(binary.LittleEndian.Uint64(rest[:]))
	step(uint64(len(data)))
	*c = checksum(sum)
}

// special are the mode bits beside the permissions, in Go's form and in Linux's.
var special = []struct {
	mode  fs.FileMode
	linux uint32
}{{fs.ModeSetuid, syscall.S_ISUID}, {fs.ModeSetgid, syscall.S_ISGID}, {fs.ModeSticky, syscall.S_ISVTX}}

func linuxMode(m fs.FileMode) uint32 {
	linux := uint32(m.Perm())
	for _, s := range special {
		if m&s.mode != 0 {
			linux |= s.linux
		}
	}
	return linux
}

func goMode(linux uint32) fs.FileMode {
	m := fs.FileMode(linux) & fs.ModePerm
	for _, s := range special {
		if linux&s.linux != 0 {
			m |= s.mode
		}
	}
	return m
}

// kindOf names a kind of file that is not copied.
func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return fmt.Sprintf("a file of the kind %v", m.Type())
}
