package regular

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A State identifies a file and its content without reading it. Every write changes the time of
// change (ctime), and unlike the time of modification (mtime), no program can set it.
type State struct {
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`     // bytes
	Modified int64  `json:"modified"` // nanoseconds since 1970
	Changed  int64  `json:"changed"`  // nanoseconds since 1970
}

// StateOf returns the state of an open file.
func StateOf(f *os.File) (State, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return State{}, os.NewSyscallError("fstat", err)
	}
	return stateOf(&st), nil
}

// StateAt returns the state of the file or directory at a path. It follows symbolic links.
func StateAt(path string) (State, error) {
	var st unix.Stat_t
	for {
		if err := unix.Stat(path, &st); err == nil {
			return stateOf(&st), nil
		} else if err != unix.EINTR {
			return State{}, &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}

func stateOf(st *unix.Stat_t) State {
	return State{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// ChangedSince reports whether the file may have changed since a time. The kernel's file times are
// coarser than its clock.
func (s State) ChangedSince(t time.Time) bool {
	return max(s.Modified, s.Changed) >= t.Add(-tick).UnixNano()
}

// tick is longer than the resolution of the kernel's file times.
const tick = 20 * time.Millisecond

var known sync.Map // from State to a function that returns the file's SHA-256

// SHA256 returns the SHA-256 of a file in hexadecimal. It reads a file once for as long as the
// file's State stays the same; a second caller waits while the first one reads.
func SHA256(path string) (string, error) {
	f, err := Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	state, err := StateOf(f)
	if err != nil {
		return "", err
	}
	read, _ := known.LoadOrStore(state, sync.OnceValues(func() (string, error) { return Sum(f) }))
	sum, err := read.(func() (string, error))()
	if err != nil {
		known.Delete(state) // the file may be readable later
		return "", err
	}
	return sum, nil
}

// Know tells SHA256 the hash of the file that has a state, so that it need not read the file.
func Know(state State, sum string) {
	known.LoadOrStore(state, func() (string, error) { return sum, nil })
}

// Sum reads r to its end and returns the SHA-256 in hexadecimal.
func Sum(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
