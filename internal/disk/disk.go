// Package disk tells what files take of a disk and what it has left, for caches that may
// only take their part.
package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Usage returns the bytes on the disk of a file, or of all files in a directory and those
// below it: less than their sizes where they have holes. What has just gone does not count.
func Usage(path string) (bytes int64) {
	filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}

// Free returns the bytes that are free for us on the disk of a directory.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Room returns how many bytes a cache may hold in a directory where it holds so many now:
// at most most, and at most a quarter of what the disk has free but for the cache.
func Room(dir string, holds, most int64) int64 {
	free, err := Free(dir)
	if err != nil {
		return most
	}
	return min(most, (free+holds)/4)
}
