package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/sys"
)

// A cache is a directory:
//
//	kernels/SHA256/      an unpacked kernel package, with its manifest
//	kernels/TARGET.json  which one is used when it is not the lock file's
//	busybox/KEY/         u-root's commands, compiled, with their manifest
//	initramfs/SHA256.cpio
//	locks/               one lock a thing that is being made
//	tmp/                 one directory a thing that is being made
//
// Whatever stands outside tmp is whole: it was made in tmp, written to the disk
// and then renamed. Readers need no lock.
type cache string

// CheckCache returns the directory in which everything is kept, makes it if it is missing,
// and tries to write there. Its error is an *Error.
func CheckCache(ctx context.Context, o Options) (dir string, err error) {
	c, err := openCache(o)
	if err != nil {
		return "", err
	}
	w, err := c.workshop(ctx, "check")
	if err == nil {
		err = os.WriteFile(w.path("file"), []byte("can be written"), 0o666)
		w.close()
	}
	if failed := (*Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	if err != nil {
		return "", fail("check cache", string(c), err, writableHint)
	}
	return string(c), nil
}

func openCache(o Options) (cache, error) {
	dir := o.Cache
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fail("open cache", "guesthouse", err, "name a directory with -cache DIR or Options.Cache")
		}
		dir = filepath.Join(base, "guesthouse")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fail("open cache", o.Cache, err, "")
	}
	for _, sub := range []string{"kernels", "busybox", "initramfs", "locks", "tmp"} {
		err := os.MkdirAll(filepath.Join(dir, sub), 0o777)
		if _, missing := os.Stat(dir); missing == nil && readOnly(err) {
			break // it serves as far as it has what is asked for
		}
		if err != nil {
			return "", fail("open cache", dir, err, "name a directory that can be written with -cache DIR or Options.Cache")
		}
	}
	return cache(dir), nil
}

func (c cache) path(elem ...string) string {
	return filepath.Join(append([]string{string(c)}, elem...)...)
}

// readOnly reports whether an error says that something must not be written.
func readOnly(err error) bool { return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) }

const writableHint = "make it writable, or name another directory with -cache DIR or Options.Cache"

// A workshop is the exclusive right to make one thing, and an empty directory
// to make it in.
type workshop struct {
	tmp  string
	lock *flock.Flock // nil outside the cache
}

// anyWorkshop is workshop for a thing that does not go into the cache: where that cannot be
// written it is a directory of the system's for temporary files, which two may have at once.
func (c cache) anyWorkshop(ctx context.Context, thing string) (*workshop, error) {
	w, err := c.workshop(ctx, thing)
	// The directories are missing of a cache that nobody could write.
	if !readOnly(err) && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	tmp, err := os.MkdirTemp("", "guesthouse-build-")
	if err != nil {
		return nil, err
	}
	return &workshop{tmp: tmp}, nil
}

// workshop waits for the right to make thing, and sweeps what processes that were
// killed have left.
func (c cache) workshop(ctx context.Context, thing string) (*workshop, error) {
	w := &workshop{tmp: c.path("tmp", thing), lock: flock.New(c.path("locks", thing))}
	if _, err := w.lock.TryLockContext(ctx, 25*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fail("write cache", string(c), err, writableHint)
	}
	err := os.RemoveAll(w.tmp)
	if err == nil {
		err = os.Mkdir(w.tmp, 0o777)
	}
	if err != nil {
		w.close()
		return nil, fail("write cache", string(c), err, writableHint)
	}
	c.sweep()
	return w, nil
}

// sweep empties the workshops that nobody works in.
func (c cache) sweep() {
	list, _ := os.ReadDir(c.path("tmp"))
	for _, e := range list {
		file := c.path("locks", e.Name())
		if _, err := os.Lstat(file); err != nil {
			continue // it is no workshop
		}
		lock := flock.New(file)
		if held, err := lock.TryLock(); err == nil && held {
			_ = os.RemoveAll(c.path("tmp", e.Name()))
			_ = lock.Unlock()
		}
	}
}

func (w *workshop) close() {
	// What cannot be removed now is swept by the next one.
	_ = os.RemoveAll(w.tmp)
	if w.lock != nil {
		_ = w.lock.Unlock()
	}
}

func (w *workshop) path(name string) string { return filepath.Join(w.tmp, name) }

// publish moves a finished file or directory from the workshop to its place.
// Not even a power cut leaves half of it there.
func (w *workshop) publish(name, dst string) error {
	src := w.path(name)
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	// One call for a tree of hundreds of files.
	err = unix.Syncfs(int(f.Fd()))
	f.Close()
	if err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	err = os.Rename(src, dst)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		// A directory that was found damaged.
		if err := os.Rename(dst, w.path("damaged")); err != nil {
			return err
		}
		err = os.Rename(src, dst)
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// A manifest lists what a directory of the cache holds.
type manifest struct {
	Debs    []deb             `json:"debs,omitempty"`
	Release string            `json:"release,omitempty"`
	Files   map[string]string `json:"files"` // path → SHA-256
}

const manifestName = "manifest.json"

func (m manifest) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestName), append(data, '\n'), 0o666)
}

// readManifest returns an error that wraps fs.ErrNotExist when there is no such
// directory, and another one when the directory is damaged.
func readManifest(dir string) (manifest, error) {
	var m manifest
	data, err := regular.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		if _, e := os.Stat(dir); e == nil {
			err = fmt.Errorf("%s: missing", manifestName)
		}
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestName, err)
	}
	return m, nil
}

// open opens a file of the manifest's directory and checks its hash.
func (m manifest) open(dir, name string) (*os.File, error) {
	want, ok := m.Files[name]
	if !ok {
		return nil, fmt.Errorf("%s: not in %s", name, manifestName)
	}
	f, err := regular.Open(filepath.Join(dir, name))
	if err != nil {
		// Not fs.ErrNotExist for the caller: the directory is there.
		return nil, fmt.Errorf("%s: %v", name, err)
	}
	got, err := hashOf(f)
	if err == nil && got != want {
		err = fmt.Errorf("its SHA-256 is %s, not %s", got, want)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashFile(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return hashOf(f)
}

func hashBytes(b []byte) string {
	// Reading memory does not fail.
	sum, _ := hashOf(bytes.NewReader(b))
	return sum
}

// used marks an entry as needed now. A cache that cannot be written still
// serves; it is then pruned by whoever can write it.
func used(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

// Each edit of a guest makes another initramfs of some ten megabytes. Of each kind the cache
// holds no more than this, and no more than its part of what the disk has (sys.CacheLimit); what
// was used least recently goes first. What was used in the last hour stays all the same:
// somebody may be about to boot it.
const (
	keepEntries = 64
	keepBytes   = 2 << 30
	keepFor     = time.Hour
)

// A CacheEntry is one thing that the cache holds.
type CacheEntry struct {
	Kind  string // "kernel", "commands" (u-root's) or "initramfs"
	Name  string // a package and its version, or a hash
	Bytes int64  // on the disk
	Used  time.Time

	path string
}

// List returns what the cache holds, of each kind the last used first.
func List(o Options) ([]CacheEntry, error) {
	c, err := openCache(o)
	if err != nil {
		return nil, err
	}
	kernels := c.list("kernels")
	for i, k := range kernels {
		if m, err := readManifest(k.path); err == nil && len(m.Debs) > 0 {
			kernels[i].Name = m.Debs[0].String()
		}
	}
	return slices.Concat(kernels, c.list("busybox"), c.list("initramfs")), nil
}

// Clear empties the cache of all that a build makes again without a network: all but the
// kernels. A machine that is just being booted may lack its initramfs then.
func Clear(ctx context.Context, o Options) error {
	c, err := openCache(o)
	if err != nil {
		return err
	}
	w, err := c.workshop(ctx, "clear")
	if err != nil {
		return fail("clear cache", string(c), err, "")
	}
	defer w.close()
	for _, e := range slices.Concat(c.list("busybox"), c.list("initramfs")) {
		if err := w.remove(e); err != nil {
			return fail("clear cache", string(c), err, "")
		}
	}
	return nil
}

var kinds = map[string]string{"kernels": "kernel", "busybox": "commands", "initramfs": "initramfs"}

// list returns the entries of one directory, the last used first.
func (c cache) list(dir string) (all []CacheEntry) {
	files, _ := os.ReadDir(c.path(dir))
	for _, f := range files {
		info, err := f.Info()
		if err != nil || filepath.Ext(f.Name()) == ".json" {
			continue
		}
		path := c.path(dir, f.Name())
		name := strings.TrimSuffix(f.Name(), ".cpio")
		all = append(all, CacheEntry{kinds[dir], name, sys.DiskUsage(path), info.ModTime(), path})
	}
	slices.SortFunc(all, func(a, b CacheEntry) int { return b.Used.Compare(a.Used) })
	return all
}

// remove removes an entry: whole or not at all, as everything here.
func (w *workshop) remove(e CacheEntry) error {
	gone := w.path("gone-" + filepath.Base(e.path))
	if err := os.Rename(e.path, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// prune removes what one directory has too much of.
func (w *workshop) prune(c cache, dir string) {
	var held int64
	all := c.list(dir)
	for _, e := range all {
		held += e.Bytes
	}
	w.pruneTo(all, keepEntries, sys.CacheLimit(string(c), held, keepBytes))
}

// pruneTo leaves so many of the entries, which are the last used first, of so many bytes.
func (w *workshop) pruneTo(all []CacheEntry, number int, bytes int64) {
	for i, e := range all {
		bytes -= e.Bytes
		if (i >= number || bytes < 0) && time.Since(e.Used) > keepFor {
			_ = w.remove(e) // what cannot be removed now is so by the next one
		}
	}
}
