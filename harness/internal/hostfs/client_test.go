package hostfs

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A client is a guest's kernel that may ask for anything.
type client struct {
	t    *testing.T
	dir  *Dir
	next uint64
}

func newClient(t *testing.T, dir string, writable bool) *client {
	t.Helper()
	d, err := Open(dir, writable)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return &client{t: t, dir: d}
}

func u32s(values ...uint32) (b []byte) {
	for _, v := range values {
		b = order.AppendUint32(b, v)
	}
	return b
}

func u64s(values ...uint64) (b []byte) {
	for _, v := range values {
		b = order.AppendUint64(b, v)
	}
	return b
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func text(s string) []byte { return append([]byte(s), 0) }

// message returns a request.
func message(op uint32, unique, node uint64, body []byte) []byte {
	return join(u32s(uint32(headerSize+len(body)), op), u64s(unique, node), u32s(0, 0, 0, 0), body)
}

// raw returns everything that a request is answered with.
func (c *client) raw(op uint32, node uint64, body []byte) []byte {
	c.next++
	b, ok := c.dir.Answer(message(op, c.next, node, body), nil)
	require.True(c.t, ok)
	return b
}

// ask returns the body of an answer. It checks the header, and drops notices.
func (c *client) ask(op uint32, node uint64, body []byte) ([]byte, unix.Errno) {
	c.t.Helper()
	b := c.raw(op, node, body)
	for order.Uint64(b[8:]) == 0 {
		b = b[order.Uint32(b):]
	}
	require.EqualValues(c.t, len(b), order.Uint32(b))
	require.Equal(c.t, c.next, order.Uint64(b[8:]))
	return b[replySize:], unix.Errno(-int32(order.Uint32(b[4:])))
}

// lookup walks to a node.
func (c *client) lookup(names ...string) (uint64, unix.Errno) {
	c.t.Helper()
	node := uint64(rootNode)
	for _, name := range names {
		out, errno := c.ask(opLookup, node, text(name))
		if errno != 0 {
			return 0, errno
		}
		node = order.Uint64(out)
	}
	return node, 0
}

func (c *client) mustLookup(names ...string) uint64 {
	c.t.Helper()
	node, errno := c.lookup(names...)
	require.Zero(c.t, errno, "%q: %v", names, errno)
	return node
}

// Attributes in an answer of GETATTR, after 16 bytes.
func attrIno(b []byte) uint64   { return order.Uint64(b[16:]) }
func attrSize(b []byte) uint64  { return order.Uint64(b[24:]) }
func attrMode(b []byte) uint32  { return order.Uint32(b[16+60:]) }
func attrNlink(b []byte) uint32 { return order.Uint32(b[16+64:]) }
func attrUID(b []byte) uint32   { return order.Uint32(b[16+68:]) }

func (c *client) getattr(node uint64) ([]byte, unix.Errno) {
	return c.ask(opGetattr, node, u32s(0, 0, 0, 0))
}

func (c *client) open(node uint64, flags int) (handle uint64, errno unix.Errno) {
	out, errno := c.ask(opOpen, node, u32s(uint32(flags), 0))
	if errno != 0 {
		return 0, errno
	}
	return order.Uint64(out), 0
}

func (c *client) mustOpen(node uint64, flags int) uint64 {
	c.t.Helper()
	handle, errno := c.open(node, flags)
	require.Zero(c.t, errno, "%v", errno)
	return handle
}

func (c *client) read(handle, offset uint64, size uint32) ([]byte, unix.Errno) {
	return c.ask(opRead, 0, join(u64s(handle, offset), u32s(size, 0, 0, 0, 0, 0)))
}

func (c *client) write(handle, offset uint64, data string) unix.Errno {
	out, errno := c.ask(opWrite, rootNode, join(u64s(handle, offset), u32s(uint32(len(data)), 0, 0, 0, 0, 0), []byte(data)))
	if errno == 0 {
		require.EqualValues(c.t, len(data), order.Uint32(out))
	}
	return errno
}

func (c *client) create(node uint64, name string, flags int, mode uint32) (created, handle uint64, errno unix.Errno) {
	out, errno := c.ask(opCreate, node, join(u32s(uint32(flags), mode, 0, 0), text(name)))
	if errno != 0 {
		return 0, 0, errno
	}
	return order.Uint64(out), order.Uint64(out[entrySize:]), 0
}

// An entry of a directory.
type entry struct {
	node uint64
	size uint64
	mode uint32
}

// list reads a directory in pieces of some size.
func (c *client) list(node uint64, piece uint32) (map[string]entry, unix.Errno) {
	out, errno := c.ask(opOpendir, node, u32s(0, 0))
	if errno != 0 {
		return nil, errno
	}
	handle := order.Uint64(out)
	defer c.ask(opReleasedir, node, join(u64s(handle), u32s(0, 0, 0, 0)))
	all := make(map[string]entry)
	for offset := uint64(0); ; {
		out, errno := c.ask(opReaddirplus, node, join(u64s(handle, offset), u32s(piece, 0, 0, 0, 0, 0)))
		if errno != 0 || len(out) == 0 {
			return all, errno
		}
		require.LessOrEqual(c.t, len(out), int(piece))
		for len(out) > 0 {
			e := entry{order.Uint64(out), order.Uint64(out[40+8:]), order.Uint32(out[40+60:])}
			d := out[entrySize:]
			offset = order.Uint64(d[8:])
			name := string(d[direntSize:][:order.Uint32(d[16:])])
			if _, again := all[name]; again {
				c.t.Fatalf("%q is listed twice", name)
			}
			all[name] = e
			out = out[entryLen(name):]
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(content), 0o666))
}
