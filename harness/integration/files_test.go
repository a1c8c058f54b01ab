package integration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// randomFile writes a file of random bytes and returns its SHA-256.
func randomFile(t *testing.T, path string, size int) string {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return hashFile(t, path)
}

func hashFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestFilesAreCopiedInAndOut(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		dir := t.TempDir()
		tree := dir + "/tree"
		require.NoError(t, os.MkdirAll(tree+"/sub", 0o777))
		sum := randomFile(t, tree+"/sub/random", 3<<20+17)
		require.NoError(t, os.WriteFile(tree+"/a\nb", []byte("newline"), 0o640))
		require.NoError(t, os.Symlink("sub/random", tree+"/link"))
		sparse, err := os.Create(tree + "/sparse")
		require.NoError(t, err)
		require.NoError(t, sparse.Truncate(3<<30), "more than the machine's memory, and than an offset of 32 bits")
		require.NoError(t, sparse.Close())
		old := time.Unix(981173106, 789)
		require.NoError(t, os.Chtimes(tree+"/a\nb", old, old))

		m.CopyIn(tree, "/tmp/in")
		seen := sha256.Sum256([]byte(m.Output("cat", "/tmp/in/link")))
		require.Equal(t, sum, hex.EncodeToString(seen[:]), "the guest sees the bytes")
		m.CopyIn(tree+"/sub/random", "/tmp/in/sub")
		m.CopyOut("/tmp/in", dir+"/out")
		require.Equal(t, sum, hashFile(t, dir+"/out/link"))
		for _, name := range []string{"a\nb", "sub/random", "sparse"} {
			in, err := os.Stat(filepath.Join(tree, name))
			require.NoError(t, err)
			out, err := os.Stat(filepath.Join(dir+"/out", name))
			require.NoError(t, err)
			require.Equal(t, in.Mode(), out.Mode(), name)
			require.Equal(t, in.Size(), out.Size(), name)
			require.True(t, in.ModTime().Equal(out.ModTime()), name)
		}
		require.Less(t, blocks(t, dir+"/out/sparse"), int64(2048), "holes stay holes")
		m.CopyOut("/proc/version", dir)
		version, err := os.ReadFile(dir + "/version")
		require.NoError(t, err)
		require.Contains(t, string(version), "Linux version")

		fsys := m.FS()
		sub, err := fs.Sub(fsys, "tmp/in")
		require.NoError(t, err)
		content, err := fs.ReadFile(sub, "a\nb")
		require.NoError(t, err)
		require.Equal(t, "newline", string(content))
		m.Shutdown()
	})
}

func TestALargeFileIsCopiedInAndOut(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, harnesstest.Platform(t, oneTarget(t)))
	dir := t.TempDir()
	sum := randomFile(t, dir+"/in", 64<<20)
	ctx, cancel := m.Machine.Within(t.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(t, m.Machine.CopyIn(ctx, dir+"/in", "/tmp/large"))
	require.NoError(t, m.Machine.CopyOut(ctx, "/tmp/large", dir+"/out"))
	require.Equal(t, sum, hashFile(t, dir+"/out"))
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks
}

func TestTheGuestsFilesAreAnFS(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, echoSpec(t, oneTarget(t)))
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/tree/sub", 0o777))
	sum := randomFile(t, dir+"/big", 700<<10)
	require.NoError(t, os.WriteFile(dir+"/tree/empty", nil, 0o600))
	require.NoError(t, os.WriteFile(dir+"/tree/sub/small", []byte("small"), 0o600)) // TestFS reads it byte by byte
	require.NoError(t, os.Symlink("sub", dir+"/tree/link"))
	m.CopyIn(dir+"/tree", "/tmp/tree")
	m.CopyIn(dir+"/big", "/tmp/big")
	sub, err := fs.Sub(m.FS(), "tmp/tree")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(sub, "empty", "sub/small", "link"))
	big, err := fs.ReadFile(m.FS(), "tmp/big")
	require.NoError(t, err)
	got := sha256.Sum256(big)
	require.Equal(t, sum, hex.EncodeToString(got[:]))

	maps, err := fs.ReadFile(m.FS(), "proc/self/status")
	require.NoError(t, err)
	require.Contains(t, string(maps), "Name:\tinit")
	_, err = fs.Stat(m.FS(), "no/such/file")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, err, harness.ErrGuest)
	m.Command("truncate", "-s", fmt.Sprint(int64(4<<60)), "/tmp/huge").Run()
	_, err = fs.ReadFile(m.FS(), "tmp/huge")
	require.ErrorContains(t, err, "it is longer than the 256 MiB that ReadFile returns")
	_, err = fs.ReadFile(m.FS(), "dev/null")
	require.ErrorContains(t, err, "not a regular file")
	_, err = fs.ReadDir(m.FS(), "etc/passwd")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = fs.Stat(m.FS(), "/etc")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestAFailedCopySaysWhyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, echoSpec(t, oneTarget(t)))
	ctx, dir := t.Context(), t.TempDir()
	m.Output("mkdir", "/run/small")
	m.Output("mount", "-t", "tmpfs", "-o", "size=8m", "none", "/run/small")
	randomFile(t, dir+"/big", 16<<20)
	require.NoError(t, os.MkdirAll(dir+"/tree", 0o777))
	require.NoError(t, os.Rename(dir+"/big", dir+"/tree/z"))
	require.NoError(t, os.WriteFile(dir+"/tree/a", []byte("a"), 0o666))

	err := m.Machine.CopyIn(ctx, dir+"/tree", "/run/small/tree")
	require.ErrorIs(t, err, syscall.ENOSPC, "the file system has 8 MiB")
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "/run/small/tree/z")
	_, err = fs.Stat(m.FS(), "run/small/tree")
	require.ErrorIs(t, err, fs.ErrNotExist, "a part of the tree is left")

	err = m.Machine.CopyIn(ctx, dir+"/missing", "/run/missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, harness.ErrGuest)
	err = m.Machine.CopyIn(ctx, dir+"/tree/a", "/no/such/dir/a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, err, harness.ErrGuest)
	err = m.Machine.CopyOut(ctx, "/no/such/file", dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, err, harness.ErrGuest)
	err = m.Machine.CopyOut(ctx, "/etc/passwd", dir+"/no/such/dir")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, m.Machine.CopyOut(ctx, "/dev/null", dir), "/dev/null: it is a device")
	require.ErrorContains(t, m.Machine.CopyOut(ctx, "/proc/kmsg", dir), "/proc/kmsg: it has no end")
	require.ErrorIs(t, m.Machine.CopyIn(ctx, dir+"/tree", "/etc/passwd"), syscall.ENOTDIR)
	require.ErrorContains(t, m.Machine.CopyIn(ctx, dir+"/tree/a", "relative"), `"relative" is not an absolute path in the guest`)

	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	err = m.Machine.CopyOut(soon, "/dev/../proc", dir+"/proc")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoDirExists(t, dir+"/proc")
	m.CopyIn(dir+"/tree/a", "/run/a")
}

func TestTheEndOfTheGuestEndsACopy(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, echoSpec(t, oneTarget(t)))
	dir := t.TempDir()
	randomFile(t, dir+"/f", 100<<20)
	copied := make(chan error, 1)
	go func() { copied <- m.Machine.CopyIn(t.Context(), dir+"/f", "/run/f") }()
	require.Eventually(t, func() bool {
		entries, err := fs.ReadDir(m.FS(), "run")
		return err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			return strings.HasPrefix(e.Name(), ".guesthouse-")
		})
	}, harnesstest.Within, time.Millisecond)
	m.Close()
	require.Error(t, <-copied)
}
