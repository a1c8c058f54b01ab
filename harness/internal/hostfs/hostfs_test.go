package hostfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAttributesAreThoseOfTheHost(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	write(t, name, "content")
	require.NoError(t, os.Chmod(name, 0o640))
	require.NoError(t, os.Link(name, filepath.Join(dir, "other")))
	modified := time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)
	require.NoError(t, os.Chtimes(name, modified, modified))
	c := newClient(t, dir, false)
	attr, errno := c.getattr(c.mustLookup("file"))
	require.Zero(t, errno)
	info, err := os.Stat(name)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	require.Equal(t, st.Ino, attrIno(attr))
	require.EqualValues(t, 7, attrSize(attr))
	require.EqualValues(t, st.Blocks, order.Uint64(attr[32:]))
	require.EqualValues(t, modified.Unix(), order.Uint64(attr[48:]))
	require.EqualValues(t, modified.Nanosecond(), order.Uint32(attr[16+52:]))
	require.EqualValues(t, unix.S_IFREG|0o640, attrMode(attr))
	require.EqualValues(t, 2, attrNlink(attr))
	require.EqualValues(t, 0, attrUID(attr), "the guest's root owns what this process owns")
	out, errno := c.ask(opStatfs, rootNode, nil)
	require.Zero(t, errno)
	require.Len(t, out, 80)
	require.NotZero(t, order.Uint64(out))
}

func TestTheOwnersChangePlaces(t *testing.T) {
	for _, id := range []uint32{0, 1, 1000, 65534} {
		for _, own := range []uint32{0, 1000} {
			require.Equal(t, id, toHost(toGuest(id, own), own))
		}
	}
	require.EqualValues(t, 0, toGuest(1000, 1000))
	require.EqualValues(t, 1000, toGuest(0, 1000))
	require.EqualValues(t, 33, toGuest(33, 1000))
}

func TestAReadOnlyDirectoryRefusesChanges(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content")
	c := newClient(t, dir, false)
	file := c.mustLookup("file")
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_TRUNC} {
		_, errno := c.open(file, flags)
		require.Equal(t, unix.EROFS, errno)
	}
	handle := c.mustOpen(file, unix.O_RDONLY)
	require.Equal(t, unix.EROFS, c.write(handle, 0, "x"))
	for op, body := range map[uint32][]byte{
		opSetattr: make([]byte, 88), opMkdir: join(u32s(0o777, 0), text("new")), opUnlink: text("file"), opRmdir: text("file"),
		opSymlink: join(text("new"), text("x")), opLink: join(u64s(file), text("new")), opRename: join(u64s(rootNode), text("file"), text("x")),
		opRename2: join(u64s(rootNode), u32s(0, 0), text("file"), text("x")), opCreate: join(u32s(unix.O_RDONLY, 0o666, 0, 0), text("file")),
		opMknod: join(u32s(unix.S_IFREG, 0, 0, 0), text("new")), opFallocate: make([]byte, 32),
	} {
		_, errno := c.ask(op, rootNode, body)
		require.Equal(t, unix.EROFS, errno, "request %d", op)
	}
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
}

// What the kernel may do without the harness is not asked again.
func TestOtherRequestsAreNotImplemented(t *testing.T) {
	c := newClient(t, t.TempDir(), true)
	for _, op := range []uint32{21, 22, 23, 24, 25, 31, 32, 33, 34, 36, 37, 39, 40, 47, 50, 51, 52, 999} {
		_, errno := c.ask(op, rootNode, make([]byte, 64))
		require.Equal(t, unix.ENOSYS, errno, "request %d", op)
	}
}

func TestFilesStayUsableWithoutTheirName(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, dir, true)
	node, handle, errno := c.create(rootNode, "file", unix.O_RDWR|unix.O_EXCL, 0o600)
	require.Zero(t, errno)
	require.Zero(t, c.write(handle, 0, "content"))
	_, errno = c.ask(opRename, rootNode, join(u64s(rootNode), text("file"), text("other")))
	require.Zero(t, errno)
	require.Zero(t, c.write(handle, 7, "!"))
	second := c.mustOpen(node, unix.O_RDONLY)
	content, errno := c.read(second, 0, 100)
	require.Zero(t, errno)
	require.Equal(t, "content!", string(content))

	_, errno = c.ask(opUnlink, rootNode, text("other"))
	require.Zero(t, errno)
	attr, errno := c.getattr(node) // fstat(2) comes without the handle
	require.Zero(t, errno)
	require.EqualValues(t, 0, attrNlink(attr))
	body := make([]byte, 88)
	order.PutUint32(body, setSize|setMode|setMtime)
	order.PutUint64(body[16:], 3)
	order.PutUint32(body[68:], 0o400)
	order.PutUint64(body[40:], 12345)
	attr, errno = c.ask(opSetattr, node, body)
	require.Zero(t, errno, "%v", errno)
	require.EqualValues(t, 3, attrSize(attr))
	require.EqualValues(t, unix.S_IFREG|0o400, attrMode(attr))
	content, errno = c.read(second, 0, 100)
	require.Zero(t, errno)
	require.Equal(t, "con", string(content))
	_, errno = c.open(node, unix.O_RDONLY)
	require.Equal(t, unix.ESTALE, errno)

	// The number of a file that is gone does not stand for a new one.
	_, _, errno = c.create(rootNode, "other", unix.O_RDWR|unix.O_EXCL, 0o600)
	require.Zero(t, errno)
	require.NotEqual(t, node, c.mustLookup("other"))
}

func TestTheNamesOfOneFileAreOneNode(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "content")
	c := newClient(t, dir, true)
	node := c.mustLookup("a")
	out, errno := c.ask(opLink, rootNode, join(u64s(node), text("b")))
	require.Zero(t, errno)
	require.Equal(t, node, order.Uint64(out))
	require.NoError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
	require.Equal(t, node, c.mustLookup("c"))
	require.NoError(t, os.Remove(filepath.Join(dir, "a")))
	handle := c.mustOpen(node, unix.O_RDONLY) // by another of its names
	content, errno := c.read(handle, 0, 100)
	require.Zero(t, errno)
	require.Equal(t, "content", string(content))
	_, errno = c.ask(opUnlink, rootNode, text("b"))
	require.Zero(t, errno)
	require.Equal(t, node, c.mustLookup("c"))
}

func TestTheHostsChangesAreSeenAtTheNextOpen(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	write(t, name, "old")
	c := newClient(t, dir, false)
	node := c.mustLookup("file")
	open := u32s(unix.O_RDONLY, 0)
	b := c.raw(opOpen, node, open)
	require.EqualValues(t, keepCache, order.Uint32(b[replySize+8:]), "the kernel's pages are right")
	write(t, name, "newer")
	b = c.raw(opOpen, node, open)
	require.EqualValues(t, 40, order.Uint32(b), "a notice comes first")
	require.EqualValues(t, notifyInvalInode, order.Uint32(b[4:]))
	require.Zero(t, order.Uint64(b[8:]))
	require.Equal(t, node, order.Uint64(b[16:]))
	require.Equal(t, ^uint64(0), order.Uint64(b[24:]))
	b = b[40:]
	require.Zero(t, order.Uint32(b[replySize+8:]), "the kernel's pages are old")

	// Another file of the same name is another node.
	write(t, filepath.Join(dir, "new"), "another")
	require.NoError(t, os.Rename(filepath.Join(dir, "new"), name))
	_, errno := c.open(node, unix.O_RDONLY)
	require.Equal(t, unix.ESTALE, errno)
	require.NotEqual(t, node, c.mustLookup("file"))
}

func TestALargeDirectoryIsListedOnce(t *testing.T) {
	dir := t.TempDir()
	const files = 5000
	for i := range files {
		write(t, filepath.Join(dir, fmt.Sprintf("file-%d", i)), fmt.Sprint(i))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o777))
	c := newClient(t, dir, false)
	for _, piece := range []uint32{4096, 128 << 10} {
		all, errno := c.list(rootNode, piece)
		require.Zero(t, errno)
		require.Len(t, all, files+3) // sub, . and ..
		require.EqualValues(t, 4, all["file-1234"].size)
		require.EqualValues(t, unix.S_IFDIR, all["sub"].mode&unix.S_IFMT)
		require.Equal(t, c.mustLookup("file-77"), all["file-77"].node)
	}
	require.Len(t, c.dir.nodes.byID, files+2)
	var forget []byte
	for id, n := range c.dir.nodes.byID {
		if id != rootNode {
			forget = join(forget, u64s(id, n.lookups))
		}
	}
	require.Empty(t, c.raw(opBatchForget, 0, join(u32s(files+1, 0), forget)))
	require.Len(t, c.dir.nodes.byID, 1)
	require.Empty(t, c.dir.nodes.byFile)
	require.Empty(t, c.dir.nodes.root.kids)
	require.Empty(t, c.dir.handles)
}

func TestAnyByteMayBeInAName(t *testing.T) {
	c := newClient(t, t.TempDir(), true)
	for b := 1; b < 256; b++ {
		if b == '/' {
			continue
		}
		name := "x" + string([]byte{byte(b)})
		_, handle, errno := c.create(rootNode, name, unix.O_RDWR, 0o666)
		require.Zero(t, errno)
		require.Zero(t, c.write(handle, 0, name))
		content, errno := c.read(c.mustOpen(c.mustLookup(name), unix.O_RDONLY), 0, 10)
		require.Zero(t, errno)
		require.Equal(t, name, string(content))
	}
	all, errno := c.list(rootNode, 4096)
	require.Zero(t, errno)
	require.Len(t, all, 254+2)
	_, errno = c.lookup(string(bytes.Repeat([]byte("n"), 256)))
	require.Equal(t, unix.ENAMETOOLONG, errno)
}

func TestTreesMove(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o777))
	write(t, filepath.Join(dir, "a/b/c/file"), "content")
	c := newClient(t, dir, true)
	file, a := c.mustLookup("a", "b", "c", "file"), c.mustLookup("a")
	_, errno := c.ask(opRename, a, join(u64s(rootNode), text("b"), text("z")))
	require.Zero(t, errno)
	require.Equal(t, file, c.mustLookup("z", "c", "file"))
	c.mustOpen(file, unix.O_RDONLY)
	_, errno = c.ask(opRename2, rootNode, join(u64s(rootNode), u32s(unix.RENAME_NOREPLACE, 0), text("z"), text("a")))
	require.Equal(t, unix.EEXIST, errno)
	_, errno = c.ask(opRename2, rootNode, join(u64s(rootNode), u32s(unix.RENAME_EXCHANGE, 0), text("z"), text("a")))
	require.Zero(t, errno)
	require.Equal(t, file, c.mustLookup("a", "c", "file"))
	require.Equal(t, a, c.mustLookup("z"))
	c.mustOpen(file, unix.O_RDONLY)
	_, errno = c.ask(opRename, rootNode, join(u64s(c.mustLookup("a", "c")), text("a"), text("ring")))
	require.Equal(t, unix.EINVAL, errno, "a directory does not move into itself")
	_, errno = c.ask(opRmdir, rootNode, text("a"))
	require.Equal(t, unix.ENOTEMPTY, errno)
	_, errno = c.ask(opUnlink, rootNode, text("a"))
	require.Equal(t, unix.EISDIR, errno)
}

func TestHolesStay(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, dir, true)
	_, handle, errno := c.create(rootNode, "sparse", unix.O_RDWR, 0o666)
	require.Zero(t, errno)
	require.Zero(t, c.write(handle, 64<<20, "end"))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dir, "sparse"), &st))
	require.Less(t, st.Blocks*512, int64(1<<20))
	out, errno := c.ask(opLseek, rootNode, join(u64s(handle, 0), u32s(unix.SEEK_DATA, 0)))
	require.Zero(t, errno)
	require.EqualValues(t, 64<<20, order.Uint64(out))
	_, errno = c.ask(opLseek, rootNode, join(u64s(handle, 0), u32s(unix.SEEK_SET, 0)))
	require.Equal(t, unix.EINVAL, errno)
}

func TestADeletedDirectoryIsEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	require.NoError(t, os.Mkdir(dir, 0o777))
	write(t, filepath.Join(dir, "file"), "content")
	c := newClient(t, dir, true)
	handle := c.mustOpen(c.mustLookup("file"), unix.O_RDONLY)
	require.NoError(t, os.RemoveAll(dir))
	all, errno := c.list(rootNode, 4096)
	require.Zero(t, errno)
	require.Len(t, all, 2) // . and ..
	_, errno = c.lookup("file")
	require.Equal(t, unix.ENOENT, errno)
	_, _, errno = c.create(rootNode, "new", unix.O_RDWR, 0o666)
	require.Equal(t, unix.ENOENT, errno)
	content, errno := c.read(handle, 0, 100)
	require.Zero(t, errno)
	require.Equal(t, "content", string(content))
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	c := newClient(t, t.TempDir(), true)
	for _, message := range [][]byte{nil, make([]byte, headerSize-1), make([]byte, headerSize)} {
		_, ok := c.dir.Answer(message, nil)
		require.False(t, ok)
	}
	_, handle, errno := c.create(rootNode, "file", unix.O_RDWR, 0o666)
	require.Zero(t, errno)
	_, errno = c.read(handle, 0, MaxData+1)
	require.Equal(t, unix.EINVAL, errno)
	_, errno = c.read(handle, 1<<63, 1)
	require.Equal(t, unix.EINVAL, errno)
	_, errno = c.read(handle+1, 0, 1)
	require.Equal(t, unix.EBADF, errno)
	_, errno = c.ask(opWrite, rootNode, join(u64s(handle, 0), u32s(9, 0, 0, 0, 0, 0), []byte("short")))
	require.Equal(t, unix.EINVAL, errno)
	_, errno = c.ask(opLookup, rootNode, []byte("without an end"))
	require.Equal(t, unix.EINVAL, errno)
	_, errno = c.ask(opLookup, 999, text("x"))
	require.Equal(t, unix.ESTALE, errno)
}
