package filetree

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// copyTree copies a path through the stream, and checks that batches are as the sender promises.
func copyTree(t *testing.T, from string, to Destination) error {
	t.Helper()
	r := NewReceiver(to)
	var before []byte // the last batch; it may be read until the next one is asked for
	err := Send(from, func(batch []byte) error {
		require.LessOrEqual(t, len(batch), MaxBatch)
		if before != nil {
			if err := r.Write(before); err != nil {
				return err
			}
		}
		before = batch
		if IsLast(batch) {
			return r.Write(batch)
		}
		return nil
	})
	if err == nil {
		require.True(t, r.Done())
	}
	return errors.Join(err, r.Close())
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
	require.NoError(t, os.Chmod(path, mode))
}

// listing describes a tree.
func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		line := rel + " " + info.Mode().String()
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			line += " -> " + target
		case !d.IsDir():
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			line += " " + string(content[:min(len(content), 20)])
			fallthrough
		default:
			line += " " + info.ModTime().UTC().Format(time.RFC3339Nano)
		}
		all = append(all, line)
		return nil
	}))
	return all
}

func TestATreeIsCopied(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	write(t, from+"/a", "content", 0o640)
	write(t, from+"/empty", "", 0o444)
	write(t, from+"/sub/run\nme", "#!", 0o755|fs.ModeSetuid)
	write(t, from+"/sub/big", strings.Repeat("x", 3*MaxBatch+77), 0o600)
	require.NoError(t, os.MkdirAll(from+"/none", 0o777))
	require.NoError(t, os.Symlink("../../outside", from+"/sub/link"))
	require.NoError(t, os.Chmod(from+"/sub", 0o555))
	t.Cleanup(func() { os.Chmod(from+"/sub", 0o755); os.Chmod(dir+"/to/sub", 0o755) })
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	require.NoError(t, os.Chtimes(from+"/a", old, old))

	require.NoError(t, copyTree(t, from, Destination{Path: dir + "/to", Name: "from"}))
	require.Equal(t, listing(t, from), listing(t, dir+"/to"))
	big, err := os.ReadFile(dir + "/to/sub/big")
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 3*MaxBatch+77), string(big))

	require.NoError(t, copyTree(t, from+"/sub/run\nme", Destination{Path: dir + "/plain", NoSetID: true}))
	info, err := os.Stat(dir + "/plain")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), info.Mode())
}

func TestTheDestinationIsAsForCp(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "new", 0o644)
	write(t, dir+"/tree/inner", "new", 0o644)
	write(t, dir+"/there/kept", "kept", 0o644)
	write(t, dir+"/there/tree/inner", "old", 0o644)
	write(t, dir+"/old", "old", 0o600)

	require.NoError(t, copyTree(t, dir+"/file", Destination{Path: dir + "/there", Name: "file"}), "into a directory")
	require.NoError(t, copyTree(t, dir+"/tree", Destination{Path: dir + "/there", Name: "tree"}), "merged")
	require.NoError(t, copyTree(t, dir+"/tree/.", Destination{Path: dir + "/there", Name: "."}), "what is in the directory")
	require.NoError(t, copyTree(t, dir+"/file", Destination{Path: dir + "/old", Name: "file"}), "replaced")
	require.NoError(t, copyTree(t, dir+"/file", Destination{Path: dir + "/x/y/exact", Exact: true}))
	for name, content := range map[string]string{"there/file": "new", "there/tree/inner": "new", "there/inner": "new", "there/kept": "kept",
		"old": "new", "x/y/exact": "new"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, content, string(got), name)
	}

	require.ErrorIs(t, copyTree(t, dir+"/tree", Destination{Path: dir + "/old", Name: "tree"}), syscall.ENOTDIR, "a directory over a file")
	write(t, dir+"/there2/file/in", "", 0o644)
	require.ErrorIs(t, copyTree(t, dir+"/file", Destination{Path: dir + "/there2", Name: "file"}), syscall.EISDIR, "a file over a directory")
	require.ErrorIs(t, copyTree(t, dir+"/file", Destination{Path: dir + "/missing/file"}), fs.ErrNotExist)
	require.ErrorIs(t, copyTree(t, dir+"/file", Destination{Path: dir + "/missing/"}), syscall.ENOTDIR)
	require.ErrorIs(t, copyTree(t, dir+"/missing", Destination{Path: dir + "/y"}), fs.ErrNotExist)
	require.NoFileExists(t, dir+"/y")
}

func TestHolesStayHoles(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(dir + "/sparse")
	require.NoError(t, err)
	const size = 1 << 30
	require.NoError(t, f.Truncate(size))
	_, err = f.WriteAt([]byte("middle"), 500<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, copyTree(t, dir+"/sparse", Destination{Path: dir + "/copy"}))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir+"/copy", &st))
	require.EqualValues(t, size, st.Size)
	require.Less(t, st.Blocks*512, int64(1<<20), "bytes on the disk")
	c, err := os.Open(dir + "/copy")
	require.NoError(t, err)
	defer c.Close()
	b := make([]byte, 8)
	_, err = c.ReadAt(b, 500<<20-1)
	require.NoError(t, err)
	require.Equal(t, "\x00middle\x00", string(b))
}

func TestFilesWithoutASizeAreReadToTheirEnd(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, copyTree(t, "/proc/self/status", Destination{Path: dir + "/status"}))
	b, err := os.ReadFile(dir + "/status")
	require.NoError(t, err)
	require.Contains(t, string(b), "Name:")
}

func TestOtherKindsOfFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/tree/a", strings.Repeat("x", 2*MaxBatch), 0o644)
	write(t, dir+"/tree/b", strings.Repeat("x", 2*MaxBatch), 0o644)
	require.NoError(t, unix.Mkfifo(dir+"/tree/pipe", 0o600))
	err := copyTree(t, dir+"/tree", Destination{Path: dir + "/to"})
	require.ErrorContains(t, err, "/tree/pipe: it is a named pipe")
	require.NoDirExists(t, dir+"/to", "a partial tree is removed")

	write(t, dir+"/there/kept", "", 0o644)
	err = copyTree(t, dir+"/tree/.", Destination{Path: dir + "/there", Name: "."})
	require.ErrorContains(t, err, "what existed before has got 1 of the copied entries")
	require.FileExists(t, dir+"/there/kept")
	require.ErrorContains(t, copyTree(t, "/dev/null", Destination{Path: dir + "/null"}), "/dev/null: it is a device")
}

func TestADeepTreeIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/deep", 0o777))
	root, err := os.OpenRoot(dir + "/deep")
	require.NoError(t, err)
	for range MaxDepth {
		require.NoError(t, root.Mkdir("d", 0o777))
		next, err := root.OpenRoot("d")
		require.NoError(t, err)
		root.Close()
		root = next
	}
	root.Close()
	require.ErrorContains(t, copyTree(t, dir+"/deep", Destination{Path: dir + "/to"}), "more than 1000 directories")
	require.NoDirExists(t, dir+"/to")
	require.NoError(t, copyTree(t, dir+"/deep/d", Destination{Path: dir + "/to"}), "one less")
}

// A changing file is changed after its first batch was read.
func TestAFileThatChangesIsRefused(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"shorter": func(path string) error { return os.Truncate(path, 10) },
		"longer":  func(path string) error { return os.Truncate(path, 100<<20) },
		"other": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("y"), 0o644), os.Truncate(path, 4*MaxBatch))
		},
		"one byte": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("y"), 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, strings.Repeat("x", 4*MaxBatch), 0o644)
			err := Send(path, func([]byte) error { return change(path) })
			require.ErrorContains(t, err, path+": it has changed while it was copied")
		})
	}
}

// The cache of images marks a program as used by its modification time while others copy it.
func TestAFileThatIsTouchedIsCopied(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/from", 0o777))
	// The small files before it let the large one's first block end anywhere in a batch.
	contents := map[string]string{"a": "x", "b": strings.Repeat("b", 1000), "large": strings.Repeat("0123456", MaxBatch)}
	for name, content := range contents {
		write(t, dir+"/from/"+name, content, 0o644)
	}
	at := time.Now()
	r := NewReceiver(Destination{Path: dir + "/to"})
	require.NoError(t, Send(dir+"/from", func(batch []byte) error {
		at = at.Add(time.Second)
		return errors.Join(os.Chtimes(dir+"/from/large", at, at), r.Write(batch))
	}))
	for name, content := range contents {
		got, err := os.ReadFile(dir + "/to/" + name)
		require.NoError(t, err)
		require.True(t, string(got) == content, name)
	}
}

func TestAnErrorOfEmitIsNotAboutAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, strings.Repeat("x", 4*MaxBatch), 0o644)
	failure := errors.New("the line has ended")
	err := Send(path, func([]byte) error { return failure })
	require.ErrorIs(t, err, failure)
	require.EqualError(t, err, "the line has ended")
}

// stream returns the batches of a path.
func stream(t testing.TB, path string) (all [][]byte) {
	t.Helper()
	require.NoError(t, Send(path, func(batch []byte) error {
		all = append(all, bytes.Clone(batch))
		return nil
	}))
	return all
}

func TestADamagedFileDoesNotAppear(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", strings.Repeat("x", 1000), 0o644)
	batches := stream(t, dir+"/file")
	batches[0][bytes.Index(batches[0], []byte("xxx"))+500] ^= 1
	r := NewReceiver(Destination{Path: dir + "/copy"})
	require.ErrorContains(t, r.Write(batches[0]), dir+"/copy: its checksum is wrong")
	require.NoError(t, r.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "not even under another name")
}

func TestNoStreamEscapes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/tree/aaaaaaaaaa", "evil", 0o644)
	whole := stream(t, dir+"/tree")[0]
	for _, name := range []string{"../escaped", "/tmp/escap", "..", ".", "", "with\x00nul00"} {
		evil := bytes.Replace(whole, []byte("\x0a\x00\x00\x00aaaaaaaaaa"), appendString(nil, name), 1)
		require.NotEqual(t, whole, evil)
		r := NewReceiver(Destination{Path: dir + "/out/to", Exact: true})
		require.ErrorIs(t, r.Write(evil), errMalformed, "%q", name)
		require.NoError(t, r.Close())
	}
	require.NoFileExists(t, dir+"/out/escaped")

	// A link that the stream itself makes, and a directory of the same name.
	require.NoError(t, os.MkdirAll(dir+"/dest", 0o777))
	require.NoError(t, os.Symlink(dir, dir+"/dest/tree"))
	require.ErrorIs(t, copyTree(t, dir+"/tree", Destination{Path: dir + "/dest", Name: "tree"}), syscall.ENOTDIR)
	require.NoFileExists(t, dir+"/aaaaaaaaaa")
}

func TestAnIncompleteStreamLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/tree/a", strings.Repeat("x", 2*MaxBatch), 0o644)
	r := NewReceiver(Destination{Path: dir + "/to"})
	require.NoError(t, r.Write(stream(t, dir+"/tree")[0]))
	require.False(t, r.Done())
	require.NoError(t, r.Close())
	require.NoDirExists(t, dir+"/to")
}

func FuzzReceiver(f *testing.F) {
	dir := f.TempDir()
	require.NoError(f, os.MkdirAll(dir+"/tree/sub", 0o777))
	require.NoError(f, os.WriteFile(dir+"/tree/sub/file", []byte("content"), 0o666))
	require.NoError(f, os.Symlink("..", dir+"/tree/link"))
	f.Add(stream(f, dir+"/tree")[0])
	f.Fuzz(func(t *testing.T, batch []byte) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(dir+"/in", 0o777))
		r := NewReceiver(Destination{Path: dir + "/in/to"})
		r.Write(batch)
		r.Close()
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing beside the destination's directory")
	})
}
