package sys

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// DiskUsage returns how many bytes of the disk a file, or all files of a directory tree, occupy.
// A sparse file occupies less than its size. A file that disappears during the call counts as
// empty.
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

// DiskFree returns how many bytes this process may still write to the disk of a directory.
func DiskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// CacheLimit returns how many bytes a cache in dir may hold. It is limit, or a quarter of the
// space that would be free if the cache were empty, whichever is less. The cache holds held bytes
// now. If the kernel does not report the free space, CacheLimit returns limit.
func CacheLimit(dir string, held, limit int64) int64 {
	free, err := DiskFree(dir)
	if err != nil {
		return limit
	}
	return min(limit, (free+held)/4)
}
