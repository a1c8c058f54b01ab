package store

import (
	"os"
	"slices"
	"time"

	"guesthouse.example/internal/sys"
)

// An Entry is one thing that a store holds.
type Entry struct {
	Name  string // in its folder
	Path  string
	Dir   bool
	Bytes int64     // on the disk, without the holes of sparse files
	Used  time.Time // when it was published or marked with Use
}

// Entries returns the entries of a folder of the store, the most recently used first. The empty
// string means the store's own directory.
func (s *Store) Entries(folder string) (all []Entry) {
	files, _ := os.ReadDir(s.Path(folder))
	for _, f := range files {
		if folder == "" && (f.Name() == locksFolder || f.Name() == tmpFolder) {
			continue
		}
		info, err := f.Info()
		if err != nil {
			continue // It has just been removed.
		}
		path := s.Path(folder, f.Name())
		all = append(all, Entry{Name: f.Name(), Path: path, Dir: f.IsDir(), Bytes: sys.DiskUsage(path), Used: info.ModTime()})
	}
	slices.SortFunc(all, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	return all
}

// Use marks an entry as used now. It does nothing in a read-only store, which only users with write
// access can prune.
func Use(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

// Limits bound what a store holds.
type Limits struct {
	Entries int
	Bytes   int64         // on the disk; sys.CacheLimit lowers it if the disk is small
	Keep    time.Duration // an entry stays this long after its last use, whatever the other limits say
}

// Prune removes the least recently used of the entries, in the order of Entries, until the rest is
// within the limits. It ignores errors, because the next Prune tries again.
func (s *Store) Prune(entries []Entry, l Limits) {
	var held int64
	for _, e := range entries {
		held += e.Bytes
	}
	room := sys.CacheLimit(s.dir, held, l.Bytes)
	for i, e := range entries {
		room -= e.Bytes
		if (i >= l.Entries || room < 0) && (l.Keep == 0 || time.Since(e.Used) > l.Keep) {
			_ = s.Remove(e.Path)
		}
	}
}
