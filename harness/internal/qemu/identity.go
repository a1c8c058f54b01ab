package qemu

import (
	"fmt"
	"path/filepath"
	"time"

	"guesthouse.example/internal/regular"
)

// Identity tells a QEMU binary from others and from its own updates: the path behind symbolic links,
// the size, and the time of change.
func Identity(binary string) (string, error) {
	path, err := filepath.EvalSymlinks(binary)
	if err != nil {
		return "", err
	}
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	is, err := regular.StateOf(f)
	if err != nil {
		return "", err
	}
	changed := time.Unix(0, is.Changed).UTC().Format(time.RFC3339Nano)
	return fmt.Sprintf("%s, %d bytes, changed %s", path, is.Size, changed), nil
}
