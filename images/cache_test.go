package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testCache(t *testing.T) cache {
	t.Helper()
	c, err := openCache(Options{Cache: t.TempDir()})
	require.NoError(t, err)
	return c
}

func TestWorkshop(t *testing.T) {
	c := testCache(t)
	stale := c.path("tmp/thing/half/of/it")
	require.NoError(t, os.MkdirAll(stale, 0o777))
	w, err := c.workshop(t.Context(), "thing")
	require.NoError(t, err)
	requireEmpty(t, w.tmp)

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.workshop(ctx, "thing")
	require.ErrorIs(t, err, context.DeadlineExceeded, "there is one at a time")

	other, err := c.workshop(t.Context(), "other thing")
	require.NoError(t, err)
	other.close()
	w.close()
	require.NoDirExists(t, w.tmp)
	w, err = c.workshop(t.Context(), "thing")
	require.NoError(t, err)
	w.close()
}

func TestAWorkshopSweepsTheOthersThatNobodyWorksIn(t *testing.T) {
	c := testCache(t)
	busy, err := c.workshop(t.Context(), "busy")
	require.NoError(t, err)
	defer busy.close()
	require.NoError(t, os.WriteFile(busy.path("file"), nil, 0o666))
	killed, err := c.workshop(t.Context(), "killed")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(killed.path("half/of/it"), 0o777))
	require.NoError(t, killed.lock.Unlock()) // as the kernel does for the dead
	foreign := c.path("tmp/foreign")
	require.NoError(t, os.WriteFile(foreign, nil, 0o666))

	w, err := c.workshop(t.Context(), "thing")
	require.NoError(t, err)
	defer w.close()
	require.NoDirExists(t, killed.tmp)
	require.FileExists(t, busy.path("file"))
	require.FileExists(t, foreign, "it was never a workshop")
	require.DirExists(t, w.tmp)
}

func TestACheckOfTheCacheThatIsKilledLeavesNothingForLong(t *testing.T) {
	c := testCache(t)
	killed, err := c.workshop(t.Context(), "check")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(killed.path("file"), nil, 0o666))
	require.NoError(t, killed.lock.Unlock()) // as the kernel does for the dead
	dir, err := CheckCache(t.Context(), Options{Cache: string(c)})
	require.NoError(t, err)
	require.Equal(t, string(c), dir)
	requireEmpty(t, c.path("tmp"))

	require.NoError(t, os.Remove(c.path("locks/check")))
	require.NoError(t, os.Mkdir(c.path("locks/check"), 0o777)) // which is nobody's to write, not even root's
	_, err = CheckCache(t.Context(), Options{Cache: string(c)})
	require.ErrorContains(t, err, "check cache "+dir+": ")
	require.ErrorContains(t, err, "hint: make it writable, or name another directory with -cache DIR")
}

func TestPublishReplaces(t *testing.T) {
	c := testCache(t)
	for i := range 2 {
		w, err := c.workshop(t.Context(), "thing")
		require.NoError(t, err)
		require.NoError(t, os.Mkdir(w.path("dir"), 0o777))
		require.NoError(t, os.WriteFile(w.path("dir/file"), fmt.Append(nil, i), 0o666))
		require.NoError(t, w.publish("dir", c.path("kernels/x")))
		data, err := os.ReadFile(c.path("kernels/x/file"))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(data))
		w.close()
	}
	requireEmpty(t, c.path("tmp"))
}

// aged makes an entry of one MiB that was last used so long ago.
func (c cache) aged(t *testing.T, name string, ago time.Duration) {
	t.Helper()
	require.NoError(t, os.WriteFile(c.path("initramfs", name), noise(1<<20), 0o666))
	when := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(c.path("initramfs", name), when, when))
}

func TestWhatWasUsedLeastRecentlyGoesFirst(t *testing.T) {
	c := testCache(t)
	w, err := c.workshop(t.Context(), "thing")
	require.NoError(t, err)
	defer w.close()
	names := func() (all string) {
		for _, e := range c.list("initramfs") {
			all += e.Name
		}
		return all
	}
	for i, name := range []string{"b.cpio", "c.cpio", "d.cpio", "e.cpio"} {
		c.aged(t, name, keepFor+time.Duration(i+1)*time.Minute)
	}
	c.aged(t, "a.cpio", 0)
	require.Equal(t, "abcde", names())
	w.pruneTo(c.list("initramfs"), 5, 1<<30)
	require.Equal(t, "abcde", names())
	w.pruneTo(c.list("initramfs"), 4, 1<<30)
	require.Equal(t, "abcd", names())
	used(c.path("initramfs/d.cpio"))
	w.pruneTo(c.list("initramfs"), 4, 7<<19) // room for three and a half
	require.Equal(t, "dab", names())
	w.pruneTo(c.list("initramfs"), 0, 0)
	require.Equal(t, "da", names(), "somebody may be about to boot what was used now")
	requireEmpty(t, w.tmp)
}

func TestTheCacheIsListedAndCleared(t *testing.T) {
	c := testCache(t)
	o := Options{Cache: string(c)}
	c.aged(t, "abc.cpio", time.Minute)
	for _, dir := range []string{"kernels/1", "kernels/2", "busybox/def"} {
		require.NoError(t, os.Mkdir(c.path(dir), 0o777))
	}
	require.NoError(t, manifest{Debs: []deb{{Package: "linux-image-1-fake", Version: "1.2.3-1"}}}.write(c.path("kernels/1")))
	require.NoError(t, os.WriteFile(c.path("kernels/arm64.json"), nil, 0o666))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(c.path("kernels/2"), old, old))

	all, err := List(o)
	require.NoError(t, err)
	var said []string
	for _, e := range all {
		said = append(said, e.Kind+" "+e.Name)
	}
	require.Equal(t, []string{"kernel linux-image-1-fake 1.2.3-1", "kernel 2", "commands def", "initramfs abc"}, said)
	require.GreaterOrEqual(t, all[3].Bytes, int64(1<<20))
	require.WithinDuration(t, time.Now().Add(-time.Minute), all[3].Used, 30*time.Second)

	require.NoError(t, Clear(t.Context(), o))
	all, err = List(o)
	require.NoError(t, err)
	require.Len(t, all, 2, "kernels take the network")
	require.FileExists(t, c.path("kernels/arm64.json"))
	requireEmpty(t, c.path("tmp"))
}

func TestOpenCacheFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err := openCache(Options{Cache: file})
	require.ErrorContains(t, err, "hint: name a directory that can be written with -cache DIR or Options.Cache")

	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	_, err = openCache(Options{})
	require.ErrorContains(t, err, "hint: name a directory with -cache DIR or Options.Cache")
}

func TestError(t *testing.T) {
	err := fail("build guest", "./cmd/upper", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "other")
	require.EqualError(t, err, "build guest ./cmd/upper: write x: no space left on device\n"+
		"hint: free some space or raise the limit, or name a directory on another disk with -cache DIR or Options.Cache")
	for _, full := range []error{syscall.EDQUOT, syscall.EFBIG, errors.New("E: Write error - write (28: No space left on device)"),
		errors.New("apt-get: signal: file size limit exceeded")} {
		require.ErrorContains(t, fail("fetch kernel", "arm64", full, "other"), "hint: free some space", "%v", full)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Same(t, err, fail("outer", "step", err, ""), "it says it already")
	require.EqualError(t, fail("fetch kernel", "arm64", context.Canceled, "try again"), "fetch kernel arm64: context canceled")
}

func TestLastWords(t *testing.T) {
	w := new(lastWords)
	for i := range 100000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	lines := strings.Split(w.String(), "\n")
	require.Len(t, lines, maxLines+1)
	require.Equal(t, "\tline 99999", lines[maxLines])
	require.Less(t, len(w.buf), 2*maxWords+100)
}
