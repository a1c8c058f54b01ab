package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testCache(t *testing.T) *Cache {
	t.Helper()
	c, err := Open(t.TempDir())
	require.NoError(t, err)
	return c
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err := Open(file)
	require.ErrorContains(t, err, "hint: name a directory that can be written with -cache DIR or Options.Cache")

	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	_, err = Open("")
	require.ErrorContains(t, err, "hint: name a directory with -cache DIR or Options.Cache")
}

func TestCheckWritesAndLeavesNothing(t *testing.T) {
	c := testCache(t)
	require.NoError(t, os.MkdirAll(c.Path("tmp/check/of/a/killed/process"), 0o777))
	dir, err := c.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, c.Path(), dir)
	requireEmpty(t, c.Path("tmp"))

	require.NoError(t, os.Remove(c.Path("locks/check")))
	require.NoError(t, os.Mkdir(c.Path("locks/check"), 0o777)) // not even root can open it for writing
	_, err = c.Check(t.Context())
	require.ErrorContains(t, err, "check cache "+dir+": ")
	require.ErrorContains(t, err, "hint: make it writable, or name another directory with -cache DIR")
}

func TestABuildOutsideNeedsNoFolders(t *testing.T) {
	c := testCache(t)
	for _, folder := range []string{"locks", "tmp"} {
		require.NoError(t, os.Remove(c.Path(folder)))
	}
	_, err := c.Build(t.Context(), "thing")
	require.ErrorContains(t, err, "write cache "+c.Path())
	t.Setenv("TMPDIR", t.TempDir())
	b, err := c.BuildOutside(t.Context(), "thing")
	require.NoError(t, err)
	require.Equal(t, os.Getenv("TMPDIR"), filepath.Dir(b.Path("")))
	b.Close()
}

func TestABuildEndsWithItsContext(t *testing.T) {
	c := testCache(t)
	b, err := c.Build(t.Context(), "thing")
	require.NoError(t, err)
	defer b.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	_, err = c.Build(ctx, "thing")
	require.Equal(t, enough, err, "the cache is not at fault")
}

// addEntries puts entries into a cache: an initramfs that was used a minute ago, two kernels of
// which one was used two hours ago, and commands.
func addEntries(t *testing.T, c *Cache) {
	t.Helper()
	require.NoError(t, os.WriteFile(c.Path("initramfs/abc.cpio"), make([]byte, 1<<20), 0o666))
	for _, dir := range []string{"kernels/1", "kernels/2", "busybox/def"} {
		require.NoError(t, os.Mkdir(c.Path(dir), 0o777))
	}
	require.NoError(t, Manifest{Debs: KernelSet{{Package: "linux-image-1-fake", Version: "1.2.3-1"}}}.Write(c.Path("kernels/1")))
	require.NoError(t, os.WriteFile(c.ChoicePath("arm64"), nil, 0o666))
	for name, ago := range map[string]time.Duration{"initramfs/abc.cpio": time.Minute, "kernels/2": 2 * time.Hour} {
		when := time.Now().Add(-ago)
		require.NoError(t, os.Chtimes(c.Path(name), when, when))
	}
}

func TestTheCacheIsListedAndCleared(t *testing.T) {
	c := testCache(t)
	addEntries(t, c)
	var listed []string
	all := c.List()
	for _, e := range all {
		listed = append(listed, e.Kind+" "+e.Name)
	}
	require.Equal(t, []string{"kernel linux-image-1-fake 1.2.3-1", "kernel 2", "commands def", "initramfs abc"}, listed)
	require.WithinDuration(t, time.Now().Add(-time.Minute), all[3].Used, 30*time.Second)

	require.NoError(t, c.Clear(t.Context()))
	require.Len(t, c.List(), 2, "kernels take the network")
	require.FileExists(t, c.ChoicePath("arm64"))
	requireEmpty(t, c.Path("tmp"))
}

func TestPruneKeepsWhatWasUsedInTheLastHour(t *testing.T) {
	defer func(entries int) { limits.Entries = entries }(limits.Entries)
	limits.Entries = 0
	c := testCache(t)
	addEntries(t, c)
	c.Prune(Kernels)
	c.Prune(Initramfs)
	require.NoDirExists(t, c.Path("kernels/2"))
	require.DirExists(t, c.Path("kernels/1"))
	require.FileExists(t, c.ChoicePath("arm64"))
	require.FileExists(t, c.Path("initramfs/abc.cpio"))
}
