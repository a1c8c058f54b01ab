package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/regular"
)

// A fileState tells a file from others and from what it was before a write. Every write changes
// the time of change (ctime), which no program can set, unlike that of modification.
type fileState struct {
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // in nanoseconds since 1970, as is the next
	Changed  int64  `json:"changed"`
}

func stateOf(f *os.File) (fileState, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileState{}, os.NewSyscallError("fstat", err)
	}
	return fileState{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// hashes remembers the hashes of files that have not changed.
var hashes fileHashes

type fileHashes struct{ known sync.Map } // of fileState to a function that returns its SHA-256

// of returns the SHA-256 of a file in hexadecimal.
func (h *fileHashes) of(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	state, err := stateOf(f)
	if err != nil {
		return "", err
	}
	// A second caller waits while the first one reads the file.
	read, _ := h.known.LoadOrStore(state, sync.OnceValues(func() (string, error) {
		hash := sha256.New()
		_, err := io.Copy(hash, f)
		return hex.EncodeToString(hash.Sum(nil)), err
	}))
	sum, err := read.(func() (string, error))()
	if err != nil {
		h.known.Delete(state) // it may be readable later
		return "", err
	}
	return sum, nil
}
