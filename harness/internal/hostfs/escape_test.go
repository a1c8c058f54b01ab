package hostfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// outside makes a shared directory and, next to it, one with a secret.
func outside(t *testing.T) (shared, secret string) {
	t.Helper()
	top := t.TempDir()
	shared, secret = filepath.Join(top, "shared"), filepath.Join(top, "secret")
	require.NoError(t, os.Mkdir(shared, 0o777))
	require.NoError(t, os.Mkdir(secret, 0o777))
	write(t, filepath.Join(secret, "file"), "secret")
	return shared, secret
}

func TestNamesDoNotLeadOutside(t *testing.T) {
	shared, _ := outside(t)
	require.NoError(t, os.Mkdir(filepath.Join(shared, "dir"), 0o777))
	c := newClient(t, shared, true)
	dir := c.mustLookup("dir")
	for _, name := range []string{"", ".", "..", "../secret", "dir/..", "/", "/etc", "dir/../../secret"} {
		_, errno := c.ask(opLookup, dir, text(name))
		require.Equal(t, unix.EINVAL, errno, "lookup of %q", name)
		_, _, errno = c.create(dir, name, unix.O_RDWR, 0o666)
		require.Equal(t, unix.EINVAL, errno, "creation of %q", name)
		for _, q := range []struct {
			op   uint32
			body []byte
		}{
			{opMkdir, join(u32s(0o777, 0), text(name))}, {opUnlink, text(name)}, {opRmdir, text(name)},
			{opSymlink, join(text(name), text("x"))}, {opLink, join(u64s(dir), text(name))},
			{opRename, join(u64s(rootNode), text(name), text("x"))}, {opRename, join(u64s(rootNode), text("x"), text(name))},
			{opRename2, join(u64s(rootNode), u32s(0, 0), text("x"), text(name))},
		} {
			_, errno := c.ask(q.op, dir, q.body)
			require.Contains(t, []unix.Errno{unix.EINVAL, unix.EPERM}, errno, "request %d for %q", q.op, name)
		}
	}
	all, errno := c.list(rootNode, 4096)
	require.Zero(t, errno)
	require.Zero(t, all[".."].node)
}

// A symbolic link is the guest's business: the host never follows one.
func TestSymbolicLinksAreNotFollowed(t *testing.T) {
	shared, secret := outside(t)
	for name, target := range map[string]string{"absolute": secret + "/file", "relative": "../secret/file", "dir": "../secret", "self": "."} {
		require.NoError(t, os.Symlink(target, filepath.Join(shared, name)))
		c := newClient(t, shared, true)
		link := c.mustLookup(name)
		out, errno := c.ask(opReadlink, link, nil)
		require.Zero(t, errno)
		require.Equal(t, target, string(out))
		_, errno = c.open(link, unix.O_RDONLY)
		require.Equal(t, unix.ENXIO, errno)
		_, errno = c.ask(opOpendir, link, u32s(0, 0))
		require.Equal(t, unix.ENOTDIR, errno)
		for _, below := range []string{"file", "shared"} {
			_, errno = c.ask(opLookup, link, text(below))
			require.Equal(t, unix.ENOTDIR, errno)
		}
		_, _, errno = c.create(link, "new", unix.O_RDWR, 0o666)
		require.Equal(t, unix.ENOTDIR, errno)
		_, _, errno = c.create(rootNode, name, unix.O_RDWR|unix.O_TRUNC, 0o666)
		require.Equal(t, unix.ESTALE, errno, "a link is not opened by CREATE")
		_, errno = c.ask(opSetattr, link, join(u32s(setSize, 0), u64s(0, 0), make([]byte, 64)))
		require.NotZero(t, errno)
		_, errno = c.ask(opSetattr, link, join(u32s(setMode, 0), u64s(0, 0), make([]byte, 64)))
		require.NotZero(t, errno)
	}
	content, err := os.ReadFile(filepath.Join(secret, "file"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(content))
	names, err := filepath.Glob(secret + "/*")
	require.NoError(t, err)
	require.Len(t, names, 1)
}

// Whoever replaces a directory that the guest knows by a link to outside gains nothing.
func TestADirectoryThatBecomesALinkIsStale(t *testing.T) {
	shared, secret := outside(t)
	dir := filepath.Join(shared, "a/b")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	write(t, filepath.Join(dir, "file"), "public")
	c := newClient(t, shared, true)
	a, b, file := c.mustLookup("a"), c.mustLookup("a", "b"), c.mustLookup("a", "b", "file")
	for _, target := range []string{secret, "../../secret", "../other"} {
		require.NoError(t, os.Rename(dir, filepath.Join(shared, "kept")))
		require.NoError(t, os.Symlink(target, dir))
		for _, q := range []struct {
			op   uint32
			node uint64
			body []byte
		}{
			{opLookup, b, text("file")}, {opOpendir, b, u32s(0, 0)}, {opOpen, file, u32s(0, 0)}, {opGetattr, file, u32s(0, 0, 0, 0)},
			{opCreate, b, join(u32s(unix.O_RDWR, 0o666, 0, 0), text("new"))}, {opMkdir, b, join(u32s(0o777, 0), text("new"))},
			{opUnlink, b, text("file")}, {opRename, b, join(u64s(a), text("file"), text("stolen"))},
			{opRename, a, join(u64s(b), text("b"), text("moved"))}, {opLink, b, join(u64s(file), text("new"))},
			{opSetattr, file, join(u32s(setSize, 0), u64s(0, 0), make([]byte, 64))},
		} {
			_, errno := c.ask(q.op, q.node, q.body)
			require.Equal(t, unix.ESTALE, errno, "request %d with b a link to %s", q.op, target)
		}
		require.NoError(t, os.Remove(dir))
		require.NoError(t, os.Rename(filepath.Join(shared, "kept"), dir))
	}
	require.Equal(t, file, c.mustLookup("a", "b", "file"), "it is there again")
	names, err := filepath.Glob(secret + "/*")
	require.NoError(t, err)
	require.Len(t, names, 1)
}

// Somebody replaces a directory by a link to outside again and again, while the guest reads below it.
func TestRacesDoNotLeadOutside(t *testing.T) {
	shared, secret := outside(t)
	dir, kept := filepath.Join(shared, "dir"), filepath.Join(shared, "kept")
	require.NoError(t, os.Mkdir(dir, 0o777))
	write(t, filepath.Join(dir, "file"), "public")
	c := newClient(t, shared, true)
	stop := make(chan struct{})
	var racer sync.WaitGroup
	racer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Rename(dir, kept) != nil || os.Symlink("../secret", dir) != nil || os.Remove(dir) != nil || os.Rename(kept, dir) != nil {
				t.Error("the racer failed")
				return
			}
		}
	})
	read, missed := 0, 0
	for late := time.Now().Add(30 * time.Second); (read < 50 || missed < 50) && time.Now().Before(late); {
		node, errno := c.lookup("dir", "file")
		if errno != 0 {
			missed++
			continue
		}
		handle, errno := c.open(node, unix.O_RDWR)
		if errno != 0 {
			missed++
			continue
		}
		content, errno := c.read(handle, 0, 100)
		require.Zero(t, errno)
		require.Equal(t, "public", string(content))
		require.Zero(t, c.write(handle, 0, "public"))
		c.ask(opRelease, node, join(u64s(handle), u32s(0, 0, 0, 0)))
		read++
		if created, handle, errno := c.create(node, "x", unix.O_RDWR, 0o666); errno == 0 {
			t.Fatal("a file below a file", created, handle)
		}
		if dirNode, errno := c.lookup("dir"); errno == 0 {
			c.create(dirNode, "new", unix.O_RDWR, 0o666)
		}
	}
	close(stop)
	racer.Wait()
	require.Greater(t, read, 10)
	require.Greater(t, missed, 10)
	names, err := filepath.Glob(secret + "/*")
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(secret, "file")}, names)
	content, err := os.ReadFile(names[0])
	require.NoError(t, err)
	require.Equal(t, "secret", string(content))
}

// A pipe without a writer would hang the server, and a device would act.
func TestSpecialFilesAreSeenButNotOpened(t *testing.T) {
	shared, _ := outside(t)
	require.NoError(t, unix.Mkfifo(filepath.Join(shared, "pipe"), 0o666))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	at, err := os.Open(shared)
	require.NoError(t, err)
	defer at.Close()
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: procPath(at) + "/socket"}))
	c := newClient(t, shared, true)
	for name, kind := range map[string]uint32{"pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK} {
		node := c.mustLookup(name)
		attr, errno := c.getattr(node)
		require.Zero(t, errno)
		require.Equal(t, kind, attrMode(attr)&unix.S_IFMT)
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_TRUNC} {
			_, errno = c.open(node, flags)
			require.Equal(t, unix.ENXIO, errno)
			_, _, errno = c.create(rootNode, name, flags, 0o666)
			require.Equal(t, unix.ENXIO, errno)
		}
	}
	for _, mode := range []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK} {
		_, errno := c.ask(opMknod, rootNode, join(u32s(mode|0o666, 1, 0, 0), text("new")))
		require.Equal(t, unix.EPERM, errno)
	}
}

func TestSetuidStaysOff(t *testing.T) {
	shared, _ := outside(t)
	c := newClient(t, shared, true)
	node, _, errno := c.create(rootNode, "file", unix.O_RDWR, 0o6755)
	require.Zero(t, errno)
	body := make([]byte, 88)
	order.PutUint32(body, setMode)
	order.PutUint32(body[68:], unix.S_IFREG|0o6711)
	_, errno = c.ask(opSetattr, node, body)
	require.Zero(t, errno)
	attr, errno := c.getattr(node)
	require.Zero(t, errno)
	require.EqualValues(t, unix.S_IFREG|0o711, attrMode(attr))
}

// A guest cannot use up the descriptors of this process.
func TestOpenFilesAreBounded(t *testing.T) {
	shared, _ := outside(t)
	write(t, filepath.Join(shared, "file"), "")
	c := newClient(t, shared, false)
	node := c.mustLookup("file")
	for range maxHandles {
		_, errno := c.open(node, unix.O_RDONLY)
		if errno == unix.EMFILE {
			return // the limit of this process is lower
		}
		require.Zero(t, errno)
	}
	_, errno := c.open(node, unix.O_RDONLY)
	require.Equal(t, unix.ENFILE, errno)
}

// A guest's kernel cannot use up the memory of this process: with files whose names are gone and that it never
// forgets, or with lists of directories.
func TestTheFilesThatTheKernelKnowsAreBounded(t *testing.T) {
	shared, _ := outside(t)
	write(t, filepath.Join(shared, "file"), "")
	c := newClient(t, shared, true)
	c.dir.nodes.limit = 100
	file := c.mustLookup("file")
	for range 98 {
		node, handle, errno := c.create(rootNode, "new", unix.O_RDWR|unix.O_EXCL, 0o666)
		require.Zero(t, errno)
		c.ask(opRelease, node, join(u64s(handle), u32s(0, 0, 0, 0)))
		_, errno = c.ask(opUnlink, rootNode, text("new"))
		require.Zero(t, errno)
	}
	_, _, errno := c.create(rootNode, "new", unix.O_RDWR, 0o666)
	require.Equal(t, unix.ENFILE, errno)
	_, errno = c.lookup("new")
	require.Equal(t, unix.ENFILE, errno)
	require.Empty(t, c.dir.handles)
	require.Len(t, c.dir.nodes.byID, 100)
	require.Equal(t, file, c.mustLookup("file"), "a file that the kernel knows already")
	all, errno := c.list(rootNode, 4096)
	require.Zero(t, errno)
	require.Len(t, all, 4, "a list has all names")
	require.Zero(t, all["new"].node)
	require.Equal(t, file, all["file"].node)
}

func TestTheListsOfDirectoriesAreBounded(t *testing.T) {
	shared, _ := outside(t)
	const files = 1000
	for i := range files {
		write(t, filepath.Join(shared, strings.Repeat("n", 250)+fmt.Sprint(10000+i)), "")
	}
	c := newClient(t, shared, false)
	list := func(handle uint64) unix.Errno {
		_, errno := c.ask(opReaddirplus, rootNode, join(u64s(handle, 0), u32s(4096, 0, 0, 0, 0, 0)))
		return errno
	}
	var handles []uint64
	for {
		out, errno := c.ask(opOpendir, rootNode, u32s(0, 0))
		require.Zero(t, errno)
		handles = append(handles, order.Uint64(out))
		if errno = list(handles[len(handles)-1]); errno != 0 {
			require.Equal(t, unix.ENOMEM, errno)
			break
		}
		require.Zero(t, list(handles[0]), "the same list again takes no more memory")
		require.Less(t, len(handles), 280)
	}
	require.Greater(t, len(handles), 200)
	for _, handle := range handles {
		c.ask(opReleasedir, rootNode, join(u64s(handle), u32s(0, 0, 0, 0)))
	}
	require.Zero(t, c.dir.listed)
	all, errno := c.list(rootNode, 128<<10)
	require.Zero(t, errno)
	require.Len(t, all, files+2)
}

// The guest's kernel forgets a number before it knows it, while the answer that has it is made.
func TestANumberThatIsForgottenTooEarlyDoesNoHarm(t *testing.T) {
	shared, _ := outside(t)
	c := newClient(t, shared, true)
	var last atomic.Uint64
	last.Store(rootNode)
	stop := make(chan struct{})
	var forgetter sync.WaitGroup
	forgetter.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.dir.Answer(message(opForget, 0, last.Load()+1, u64s(1)), nil)
			}
		}
	})
	for range 300 {
		node, handle, errno := c.create(rootNode, "new", unix.O_RDWR, 0o666)
		require.Zero(t, errno)
		last.Store(node)
		c.ask(opRelease, node, join(u64s(handle), u32s(0, 0, 0, 0)))
		_, errno = c.ask(opUnlink, rootNode, text("new"))
		require.Zero(t, errno)
	}
	close(stop)
	forgetter.Wait()
}

func FuzzAnswer(f *testing.F) {
	for _, op := range []uint32{opLookup, opOpen, opReaddirplus, opSetattr, opCreate, opRename2, opBatchForget, opRead} {
		f.Add(op, uint64(rootNode), join(u64s(1, 0), u32s(4096, 0, 0, 0), text("file"), text("x")))
	}
	shared := f.TempDir()
	d, err := Open(shared, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, op uint32, node uint64, body []byte) {
		if op == opFallocate || op == opWrite || strings.Contains(string(body), "/") {
			return // they may fill the disk; a name with a slash is refused
		}
		b, ok := d.Answer(message(op, 1, node, body), nil)
		if ok && op != opForget && op != opBatchForget && len(b) < replySize {
			t.Fatalf("request %d has no answer", op)
		}
		if len(b) > MaxMessage {
			t.Fatalf("request %d has an answer of %d bytes", op, len(b))
		}
	})
}
