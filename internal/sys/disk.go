package sys

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// DiskUsage returns the bytes on the disk of a file, or of all files in a directory and those
// below it: less than their sizes where they have holes. What has just gone does not count.
func DiskUsage(path string) (bytes int64) {
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

// DiskFree returns the bytes that are free for us on the disk of a directory.
func DiskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// CacheLimit returns how many bytes a cache may hold in a directory where it holds so many now:
// at most most, and at most a quarter of what the disk has free but for the cache.
func CacheLimit(dir string, holds, most int64) int64 {
	free, err := DiskFree(dir)
	if err != nil {
		return most
	}
	return min(most, (free+holds)/4)
}
