package qemu

import (
	"fmt"
	"path/filepath"
	"time"

	"guesthouse.example/internal/regular"
)

// Identity returns a text that is different for each QEMU binary and after each update of a binary: the
// path behind symbolic links, the size, and the time of the last change.
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
	state, err := regular.StateOf(f)
	if err != nil {
		return "", err
	}
	changed := time.Unix(0, state.Changed).UTC().Format(time.RFC3339Nano)
	return fmt.Sprintf("%s, %d bytes, changed %s", path, state.Size, changed), nil
}
