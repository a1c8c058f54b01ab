package imagecache

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guesthouse.example/internal/store"
)

// limits bound each folder of the cache, because each edit of a guest makes another initramfs of
// about ten megabytes. An entry that was used in the last hour stays, because a machine may be about
// to boot from it; package images marks an entry only every ten minutes.
var limits = store.Limits{Entries: 64, Bytes: 2 << 30, Keep: time.Hour + 10*time.Minute}

// An Entry is one thing that the cache holds.
type Entry struct {
	Kind  string // "kernel", "commands" (u-root's), "initramfs" or "program" (a guest program)
	Name  string // a package and its version, or a hash
	Bytes int64  // on the disk
	Used  time.Time
}

var kinds = map[string]string{Kernels: "kernel", Commands: "commands", Initramfs: "initramfs", Programs: "program"}

// List returns the entries of the cache: kernels, then commands, then initramfs archives, then guest
// programs. Within each kind, the most recently used comes first.
func (c *Cache) List() (all []Entry) {
	for _, folder := range []string{Kernels, Commands, Initramfs, Programs} {
		for _, e := range c.entries(folder) {
			name := strings.TrimSuffix(e.Name, ".cpio")
			if m, err := ReadManifest(e.Path); err == nil && len(m.Debs) > 0 {
				name = m.Debs[0].String()
			}
			all = append(all, Entry{kinds[folder], name, e.Bytes, e.Used})
		}
	}
	return all
}

// entries returns the entries of a folder, without the Choices of kernels.
func (c *Cache) entries(folder string) []store.Entry {
	return slices.DeleteFunc(c.store.Entries(folder), func(e store.Entry) bool { return filepath.Ext(e.Name) == ".json" })
}

// Clear removes everything except the kernels, because a build needs a network only to fetch a
// kernel again. A machine that is about to boot may lose its initramfs or its program.
func (c *Cache) Clear(ctx context.Context) error {
	b, err := c.Build(ctx, "clear")
	if err != nil {
		return Fail("clear cache", c.Path(), err, "")
	}
	defer b.Close()
	for _, e := range slices.Concat(c.entries(Commands), c.entries(Initramfs), c.entries(Programs), c.entries(Stamps)) {
		if err := c.store.Remove(e.Path); err != nil {
			return Fail("clear cache", c.Path(), err, "")
		}
	}
	return nil
}

// Prune removes the least recently used entries of a folder that exceed the limits.
func (c *Cache) Prune(folder string) {
	l := limits
	if folder == Stamps { // They are small, and there is one for each package and set of options.
		l.Entries *= 8
	}
	c.store.Prune(c.entries(folder), l)
}
