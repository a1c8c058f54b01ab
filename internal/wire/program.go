package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"
)

// A Program says how init starts the guest program of a platform.
type Program struct {
	Args []string // without the program's name
	Env  []string // "KEY=VALUE", in addition to init's environment; the last value of a key counts
}

// Encode returns the payload of Run: the number of arguments, and the arguments and variables, each
// with a NUL byte behind it.
func (p Program) Encode() ([]byte, error) {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(p.Args)))
	for _, arg := range p.Args {
		if strings.Contains(arg, "\x00") {
			return nil, fmt.Errorf("argument %q of the guest program holds a NUL byte", arg)
		}
		b = append(append(b, arg...), 0)
	}
	for _, v := range p.Env {
		if strings.Contains(v, "\x00") || strings.Index(v, "=") < 1 {
			return nil, fmt.Errorf("variable %q of the guest program: write KEY=VALUE without NUL bytes", v)
		}
		b = append(append(b, v...), 0)
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("arguments and variables of the guest program have %d bytes: the limit is %d", len(b), maxPayload)
	}
	return b, nil
}

var errProgram = errors.New("run: malformed payload")

// DecodeProgram decodes the payload of Run.
func DecodeProgram(b []byte) (p Program, err error) {
	if len(b) < 4 {
		return p, errProgram
	}
	n := binary.BigEndian.Uint32(b)
	all := strings.SplitAfter(string(b[4:]), "\x00")
	if last := len(all) - 1; all[last] != "" || uint64(n) > uint64(last) {
		return p, errProgram
	}
	for i, s := range all[:len(all)-1] {
		s = s[:len(s)-1]
		if uint64(i) < uint64(n) {
			p.Args = append(p.Args, s)
		} else if strings.Index(s, "=") > 0 {
			p.Env = append(p.Env, s)
		} else {
			return Program{}, errProgram
		}
	}
	return p, nil
}

// A File is a file for the guest.
type File struct {
	Path string      // absolute and clean
	Perm fs.FileMode // only permission bits
	Size int64       // bytes
}

// MaxChunk is the length limit in bytes of a Chunk's data.
const MaxChunk = 256 << 10

// A Chunk is a piece of a file. The chunks of a file come one after the other, and no chunk of another
// file comes between them. The file appears at its path when its last chunk has come. The guest does
// not compute a hash of the content, which takes an emulated processor longer than the transfer: the
// checksums of the frames protect the content on its way, and the harness checks what it sends.
type Chunk struct {
	File   File
	Offset int64
	Data   []byte // at most MaxChunk bytes; empty only for an empty file
}

// Last reports whether the chunk ends its file.
func (c Chunk) Last() bool { return c.Offset+int64(len(c.Data)) == c.File.Size }

const chunkHeader = 4 + 8 + 8 + 2

// Encode returns the payload of Deliver.
func (c Chunk) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, chunkHeader+len(c.File.Path)+len(c.Data))
	b = binary.BigEndian.AppendUint32(b, uint32(c.File.Perm))
	b = binary.BigEndian.AppendUint64(b, uint64(c.File.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Offset))
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.File.Path)))
	b = append(b, c.File.Path...)
	return append(b, c.Data...), nil
}

// DecodeChunk decodes the payload of Deliver.
func DecodeChunk(b []byte) (c Chunk, err error) {
	const truncated = "deliver: the payload ends too early"
	if len(b) < chunkHeader {
		return c, errors.New(truncated)
	}
	c.File.Perm = fs.FileMode(binary.BigEndian.Uint32(b))
	c.File.Size = int64(binary.BigEndian.Uint64(b[4:]))
	c.Offset = int64(binary.BigEndian.Uint64(b[12:]))
	n := int(binary.BigEndian.Uint16(b[chunkHeader-2:]))
	if b = b[chunkHeader:]; len(b) < n {
		return c, errors.New(truncated)
	}
	c.File.Path, c.Data = string(b[:n]), b[n:]
	return c, c.check()
}

// maxPath is Linux's limit (PATH_MAX) in bytes, without the NUL.
const maxPath = 4095

func (c Chunk) check() error {
	f := c.File
	switch {
	case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.Contains(f.Path, "\x00"):
		return fmt.Errorf("deliver: %q is not a clean absolute path of a file", f.Path)
	case len(f.Path) > maxPath:
		return fmt.Errorf("deliver: a path of %d bytes: the limit is %d", len(f.Path), maxPath)
	case f.Perm&^fs.ModePerm != 0:
		return fmt.Errorf("deliver %s: mode %v has more than permission bits", f.Path, f.Perm)
	case len(c.Data) > MaxChunk:
		return fmt.Errorf("deliver %s: a chunk of %d bytes: the limit is %d", f.Path, len(c.Data), MaxChunk)
	case c.Offset < 0 || f.Size < 0 || c.Offset > math.MaxInt64-MaxChunk || c.Offset+int64(len(c.Data)) > f.Size:
		return fmt.Errorf("deliver %s: a chunk of %d bytes at %d in a file of %d", f.Path, len(c.Data), c.Offset, f.Size)
	case len(c.Data) == 0 && f.Size > 0:
		return fmt.Errorf("deliver %s: an empty chunk of a file of %d bytes", f.Path, f.Size)
	}
	return nil
}
