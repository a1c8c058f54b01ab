package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"
)

// A CopyRequest asks for a copy between a path of the guest and a channel of the disk.
type CopyRequest struct {
	Channel uint32
	Path    string // absolute
	Name    string // of CopyIn: filetree.Destination.Name
	Exact   bool   // of CopyIn: filetree.Destination.Exact
	Expect  int    // of CopyIn: the size in bytes that the first batch probably has
}

// Encode returns the payload of CopyIn and CopyOut.
func (r CopyRequest) Encode() ([]byte, error) {
	if err := checkPath(r.Path); err != nil {
		return nil, err
	}
	if strings.ContainsAny(r.Name, "/\x00") {
		return nil, fmt.Errorf("%q is not a file's name", r.Name)
	}
	b := append(binary.BigEndian.AppendUint32(nil, r.Channel), flag(r.Exact))
	b = binary.BigEndian.AppendUint32(b, uint32(r.Expect))
	b = append(append(b, r.Path...), 0)
	return append(b, r.Name...), nil
}

func checkPath(p string) error {
	if !path.IsAbs(p) || strings.Contains(p, "\x00") {
		return fmt.Errorf("%q is not an absolute path in the guest", p)
	}
	if len(p) > maxPath {
		return fmt.Errorf("a path of %d bytes: the limit is %d", len(p), maxPath)
	}
	return nil
}

// DecodeCopyRequest decodes the payload of CopyIn and CopyOut.
func DecodeCopyRequest(b []byte) (r CopyRequest, err error) {
	if len(b) < 9 || b[4] > 1 {
		return r, errors.New("copy: malformed payload")
	}
	r.Channel, r.Exact, r.Expect = binary.BigEndian.Uint32(b), b[4] == 1, int(binary.BigEndian.Uint32(b[5:]))
	r.Path, r.Name, _ = strings.Cut(string(b[9:]), "\x00")
	return r, checkPath(r.Path)
}

// The things that a LookRequest asks for.
const (
	Stat     byte = 1 + iota // the FileInfo of what a path leads to
	Lstat                    // the FileInfo of a path, which may be that of a symbolic link
	ReadLink                 // the target of a symbolic link
	ReadDir                  // the FileInfos of a directory's entries, without "." and ".."
	ReadFile                 // bytes of a regular file
)

// MaxRead is the length limit in bytes of the answer to one ReadFile.
const MaxRead = 256 << 10

// A LookRequest asks about a file.
type LookRequest struct {
	What   byte
	Path   string // absolute
	Offset int64  // of ReadFile
	Length int    // of ReadFile: at most MaxRead
	Inode  uint64 // of ReadFile: the file must have it still; 0 for any
}

const lookHeader = 1 + 8 + 4 + 8

// Encode returns the payload of Look.
func (r LookRequest) Encode() ([]byte, error) {
	if err := checkPath(r.Path); err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint64([]byte{r.What}, uint64(r.Offset))
	b = binary.BigEndian.AppendUint32(b, uint32(r.Length))
	b = binary.BigEndian.AppendUint64(b, r.Inode)
	return append(b, r.Path...), nil
}

// DecodeLookRequest decodes the payload of Look.
func DecodeLookRequest(b []byte) (r LookRequest, err error) {
	if len(b) < lookHeader {
		return r, errors.New("look: malformed payload")
	}
	r.What, r.Offset = b[0], int64(binary.BigEndian.Uint64(b[1:]))
	r.Length, r.Inode = int(binary.BigEndian.Uint32(b[9:])), binary.BigEndian.Uint64(b[13:])
	r.Path = string(b[lookHeader:])
	if r.What < Stat || r.What > ReadFile || r.Offset < 0 || r.Length < 0 || r.Length > MaxRead {
		return r, errors.New("look: malformed payload")
	}
	return r, checkPath(r.Path)
}

// A FileInfo describes a file of the guest. It has the methods of fs.FileInfo.
type FileInfo struct {
	Base    string
	Bytes   int64
	FMode   fs.FileMode
	Changed time.Time
	Inode   uint64
}

func (i FileInfo) Name() string       { return i.Base }
func (i FileInfo) Size() int64        { return i.Bytes }
func (i FileInfo) Mode() fs.FileMode  { return i.FMode }
func (i FileInfo) ModTime() time.Time { return i.Changed }
func (i FileInfo) IsDir() bool        { return i.FMode.IsDir() }
func (i FileInfo) Sys() any           { return nil }

// Append appends the encoded description to b.
func (i FileInfo) Append(b []byte) []byte {
	for _, v := range []uint64{uint64(i.Bytes), uint64(i.FMode), uint64(i.Changed.UnixNano()), i.Inode, uint64(len(i.Base))} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, i.Base...)
}

// DecodeFileInfos decodes descriptions.
func DecodeFileInfos(b []byte) (all []FileInfo, err error) {
	const header = 5 * 8
	for len(b) > 0 {
		if len(b) < header {
			return nil, errors.New("description of a file: it ends too early")
		}
		be := binary.BigEndian
		i := FileInfo{Bytes: int64(be.Uint64(b)), FMode: fs.FileMode(be.Uint64(b[8:])), Changed: time.Unix(0, int64(be.Uint64(b[16:]))), Inode: be.Uint64(b[24:])}
		n := be.Uint64(b[32:])
		if b = b[header:]; n > uint64(len(b)) {
			return nil, errors.New("description of a file: it ends too early")
		}
		i.Base, b = string(b[:n]), b[n:]
		all = append(all, i)
	}
	return all, nil
}

// A Result is the outcome of a call: a failure, or data.
type Result struct {
	Err  error
	Data []byte // only without a failure
}

// A GuestError is a failure in the guest. It wraps the error number of its cause, so that errors.Is finds
// fs.ErrNotExist, for example.
type GuestError struct {
	Text   string
	Number syscall.Errno // Linux's; 0 if the cause is no system call
}

func (e *GuestError) Error() string { return e.Text }

func (e *GuestError) Unwrap() error {
	if e.Number == 0 {
		return nil
	}
	return e.Number
}

// Encode returns the payload of the answer to a call.
func (r Result) Encode() []byte {
	if r.Err == nil {
		return append([]byte{0, 0, 0, 0, 0}, r.Data...)
	}
	number, _ := errors.AsType[syscall.Errno](r.Err)
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(number))
	text := r.Err.Error()
	return append(b, text[:min(len(text), MaxText)]...)
}

// DecodeResult decodes the payload of the answer to a call. Its Err is a *GuestError.
func DecodeResult(b []byte) (Result, error) {
	if len(b) < 5 || b[0] > 1 {
		return Result{}, errors.New("result: malformed payload")
	}
	if b[0] == 0 {
		return Result{Data: b[5:]}, nil
	}
	return Result{Err: &GuestError{Text: string(b[5:]), Number: syscall.Errno(binary.BigEndian.Uint32(b[1:]))}}, nil
}
