package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testStore(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), o, "things")
	require.NoError(t, err)
	return s
}

func build(t *testing.T, s *Store, name string) *Build {
	t.Helper()
	b, err := s.Build(t.Context(), name)
	require.NoError(t, err)
	return b
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestOpenMakesTheFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	s, err := Open(dir, Options{Private: true}, "things")
	require.NoError(t, err)
	for _, folder := range []string{"", "things", "locks", "tmp"} {
		info, err := os.Stat(s.Path(folder))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), folder)
	}
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err = Open(file, Options{})
	require.ErrorContains(t, err, "mkdir "+file)
}

func TestABuildIsExclusiveAndBeginsEmpty(t *testing.T) {
	s := testStore(t, Options{})
	require.NoError(t, os.MkdirAll(s.Path("tmp/thing/half/of/it"), 0o777))
	b := build(t, s, "thing")
	require.False(t, b.Waited)
	requireEmpty(t, b.Path(""))

	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, enough)
	defer cancel()
	_, err := s.Build(ctx, "thing")
	require.ErrorIs(t, err, enough)
	build(t, s, "another thing").Close()

	time.AfterFunc(50*time.Millisecond, b.Close)
	second := build(t, s, "thing")
	require.True(t, second.Waited)
	second.Close()
	requireEmpty(t, s.Path("tmp"))
	require.FileExists(t, s.Path("locks/thing"), "another process may wait for this very file")
}

func TestABuildDoesNotBeginAfterItsContext(t *testing.T) {
	s := testStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Build(ctx, "thing")
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, s.Path("tmp"))
}

func TestNamesWithTheSamePrefixShareALock(t *testing.T) {
	s := testStore(t, Options{LockPrefix: 2})
	b := build(t, s, "ab1")
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Build(ctx, "ab2")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	build(t, s, "ac1").Close()
	build(t, s, "a").Close()
}

func TestPublishReplacesADamagedEntry(t *testing.T) {
	for _, o := range []Options{{}, {Durable: true}} {
		s := testStore(t, o)
		for i := range 2 {
			b := build(t, s, "thing")
			require.NoError(t, os.Mkdir(b.Path("dir"), 0o777))
			require.NoError(t, os.WriteFile(b.Path("dir/file"), fmt.Append(nil, i), 0o666))
			require.NoError(t, b.Publish("dir", s.Path("things/x")))
			data, err := os.ReadFile(s.Path("things/x/file"))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(data))
			b.Close()
		}
		requireEmpty(t, s.Path("tmp"))
	}
}

func TestTheBuildsOwnDirectoryCanBeTheEntry(t *testing.T) {
	s := testStore(t, Options{})
	b := build(t, s, "thing")
	require.NoError(t, os.WriteFile(b.Path("file"), nil, 0o666))
	require.NoError(t, b.Publish("", s.Path("things/x")))
	b.Close()
	require.FileExists(t, s.Path("things/x/file"))
	requireEmpty(t, s.Path("tmp"))
}

func TestAScratchBuildLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b, err := Scratch()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(b.Path("file"), nil, 0o666))
	b.Close()
	requireEmpty(t, os.TempDir())
}

func TestRemove(t *testing.T) {
	s := testStore(t, Options{})
	require.NoError(t, os.MkdirAll(s.Path("things/x/y"), 0o777))
	require.NoError(t, s.Remove(s.Path("things/x")))
	require.NoError(t, s.Remove(s.Path("things/x")), "it is gone already")
	requireEmpty(t, s.Path("things"))
	requireEmpty(t, s.Path("tmp"))

	require.NoError(t, os.Mkdir(s.Path("things/x"), 0o777))
	require.NoError(t, os.Remove(s.Path("tmp")))
	require.Error(t, s.Remove(s.Path("things/x")))
	require.DirExists(t, s.Path("things/x"))
}

// aged makes an entry of one MiB with a last use that is the given time ago.
func aged(t *testing.T, s *Store, name string, ago time.Duration) {
	t.Helper()
	noise := make([]byte, 1<<20) // no file system compresses it
	rand.NewChaCha8([32]byte{}).Read(noise)
	require.NoError(t, os.WriteFile(s.Path("things", name), noise, 0o666))
	when := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(s.Path("things", name), when, when))
}

func TestPruneRemovesTheLeastRecentlyUsed(t *testing.T) {
	s := testStore(t, Options{})
	names := func() (all string) {
		for _, e := range s.Entries("things") {
			all += e.Name
		}
		return all
	}
	prune := func(l Limits) { s.Prune(s.Entries("things"), l) }
	for i, name := range []string{"b", "c", "d", "e"} {
		aged(t, s, name, time.Hour+time.Duration(i+1)*time.Minute)
	}
	aged(t, s, "a", 0)
	require.Equal(t, "abcde", names())
	prune(Limits{Entries: 5, Bytes: 1 << 30})
	require.Equal(t, "abcde", names())
	prune(Limits{Entries: 4, Bytes: 1 << 30})
	require.Equal(t, "abcd", names())
	Use(s.Path("things/d"))
	prune(Limits{Entries: 4, Bytes: 7 << 19}) // three and a half entries
	require.Equal(t, "dab", names())
	prune(Limits{Keep: time.Hour})
	require.Equal(t, "da", names(), "a process may be about to use what was used just now")
	prune(Limits{})
	require.Empty(t, names())
	requireEmpty(t, s.Path("tmp"))
}

func TestEntriesOfTheStoreItselfAreWithoutItsFolders(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(s.Path("x"), 0o777))
	require.NoError(t, os.WriteFile(s.Path("x/file"), make([]byte, 8192), 0o666))
	all := s.Entries("")
	require.Len(t, all, 1)
	require.Equal(t, "x", all[0].Name)
	require.Equal(t, s.Path("x"), all[0].Path)
	require.True(t, all[0].Dir)
	require.Positive(t, all[0].Bytes)
	require.WithinDuration(t, time.Now(), all[0].Used, time.Minute)
}
