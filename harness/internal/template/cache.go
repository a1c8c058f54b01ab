package template

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
)

// A Cache is a directory of templates that any number of processes share:
//
//	KEY/      a template
//	KEY.cold  a note that says why machines of this kind have none
//
// Package store keeps its own files in the same directory. Templates are not flushed to the disk,
// because a process finds none from before the host's last boot: see Key.
type Cache struct{ store *store.Store }

// limits are the limits of a cache, besides its share of the disk: see store.Limits. Machines that run
// from a removed template go on, because they have its files open.
var limits = store.Limits{Entries: 64, Bytes: 8 << 30}

// A note is removed after a day, so that a guest that has changed since is tried again.
const (
	noteSuffix = ".cold"
	keepNote   = 24 * time.Hour
)

// OpenCache opens the cache in a directory, which it makes if it is missing. The empty string
// stands for guesthouse/templates in the user's cache directory.
func OpenCache(dir string) (*Cache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(base, "guesthouse", "templates")
	}
	// Lock files are never removed, so all keys share 512 of them. Builds of two keys with the same lock
	// file wait for each other.
	s, err := store.Open(dir, store.Options{Private: true, LockPrefix: 3})
	if err != nil {
		return nil, err
	}
	return &Cache{s}, nil
}

// Lookup opens the template with a key. If there is none, it returns nil, and the reason if Note has
// recorded one.
func (c *Cache) Lookup(key string) (t *Template, reason string, err error) {
	if note, err := regular.ReadFile(c.store.Path(key + noteSuffix)); err == nil {
		return nil, string(note), nil
	}
	t, err = Open(c.store.Path(key))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(c.store.Path(key)); errors.Is(err, fs.ErrNotExist) {
			return nil, "", nil
		}
	}
	if err != nil {
		return nil, "", err
	}
	store.Use(t.dir)
	return t, "", nil
}

// Build waits for the build lock of a key and returns a directory for the template; see
// store.Build. If delivered is true, the template is of a machine into which a program was delivered.
// Such templates have other locks than all others, because the caller may hold two locks: that of the
// program's template, and then that of its platform's.
func (c *Cache) Build(ctx context.Context, key string, delivered bool) (*store.Build, error) {
	if delivered {
		return c.store.Build(ctx, "d"+key)
	}
	return c.store.Build(ctx, "b"+key)
}

// Publish makes the directory of a build the template with a key, and prunes the cache.
func (c *Cache) Publish(b *store.Build, key string) error {
	if err := b.Publish("", c.store.Path(key)); err != nil {
		return err
	}
	c.Prune()
	return nil
}

// Note records for a day why machines with a key have no template, so that no process tries to save one.
func (c *Cache) Note(key, reason string) {
	_ = os.WriteFile(c.store.Path(key+noteSuffix), []byte(reason), 0o600)
}

// Remove removes the template with a key.
func (c *Cache) Remove(key string) error { return c.store.Remove(c.store.Path(key)) }

// Prune removes the least recently used templates that exceed the limits, old notes, and what
// killed processes have left.
func (c *Cache) Prune() {
	c.store.Prune(c.templates(), limits)
	c.store.Sweep()
	notes, _ := filepath.Glob(c.store.Path("*" + noteSuffix))
	for _, note := range notes {
		if info, err := os.Stat(note); err == nil && time.Since(info.ModTime()) > keepNote {
			_ = os.Remove(note)
		}
	}
}

// Clear removes all templates and notes. It does not touch what is being built.
func (c *Cache) Clear() error {
	var err error
	for _, e := range c.store.Entries("") {
		err = errors.Join(err, c.store.Remove(e.Path))
	}
	c.store.Sweep()
	return err
}

// An Entry is one of a cache's templates.
type Entry struct {
	Key    string
	Target string
	Guest  string    // Description.Guest
	Bytes  int64     // on the disk
	Used   time.Time // when a machine was last saved or restored
}

// List returns the templates, the most recently used first.
func (c *Cache) List() (all []Entry) {
	for _, e := range c.templates() {
		t := Entry{Key: e.Name, Target: "?", Bytes: e.Bytes, Used: e.Used}
		var d Description
		if text, err := regular.ReadFile(filepath.Join(e.Path, descriptionName)); err == nil && json.Unmarshal(text, &d) == nil {
			t.Target, t.Guest = d.Of.Target, d.Guest
		}
		all = append(all, t)
	}
	return all
}

func (c *Cache) templates() []store.Entry {
	return slices.DeleteFunc(c.store.Entries(""), func(e store.Entry) bool { return !e.Dir })
}
