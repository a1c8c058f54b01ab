package hostfs

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The requests that Linux sends, by include/uapi/linux/fuse.h. They are those of version 7.31, on which the guest's
// init agrees with the kernel (INIT).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opOpendir     = 27
	opReleasedir  = 29
	opFsyncdir    = 30
	opCreate      = 35
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43
	opReaddirplus = 44
	opRename2     = 45
	opLseek       = 46
)

const (
	headerSize = 40 // of a request
	replySize  = 16 // of a reply's header

	// MaxData is the largest READ and WRITE in bytes, the kernel's limit.
	MaxData = 1 << 20

	// MaxMessage is the length limit of a request and of a reply in bytes.
	MaxMessage = MaxData + 4096

	getattrFH = 1 << 0 // flag of GETATTR: the handle is valid

	keepCache = 1 << 1 // flag of the answer to OPEN: the page cache is still right

	notifyInvalInode = 2 // the code of a message that makes the kernel ask for attributes again
)

// Which fields of SETATTR are valid.
const (
	setMode     = 1 << 0
	setUID      = 1 << 1
	setGID      = 1 << 2
	setSize     = 1 << 3
	setAtime    = 1 << 4
	setMtime    = 1 << 5
	setHandle   = 1 << 6
	setAtimeNow = 1 << 7
	setMtimeNow = 1 << 8
)

// The machine's processors are all little-endian, and so the kernel's messages are.
var order = binary.LittleEndian

// A request is what the kernel asks. Its body is what follows the header.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	body   []byte
}

// parse parses a whole request. It returns false for one that is too short.
func parse(b []byte) (request, bool) {
	if len(b) < headerSize || int64(order.Uint32(b)) != int64(len(b)) {
		return request{}, false
	}
	return request{op: order.Uint32(b[4:]), unique: order.Uint64(b[8:]), node: order.Uint64(b[16:]), body: b[headerSize:]}, true
}

// A body is read from its start. A read beyond its end makes it short and returns zeros.
type body struct {
	b     []byte
	short bool
}

func (d *body) take(n int) []byte {
	if len(d.b) < n {
		d.short = true
		d.b = nil
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *body) u32() uint32 { return order.Uint32(d.take(4)) }
func (d *body) u64() uint64 { return order.Uint64(d.take(8)) }

// text reads a text that ends with a NUL byte.
func (d *body) text() string {
	text, rest, ok := bytes.Cut(d.b, []byte{0})
	d.b = rest
	if !ok {
		d.short = true
		return ""
	}
	return string(text)
}

// A reply collects one answer, with notices before it.
type reply struct {
	b     []byte
	start int // of the answer
}

func (r *reply) u32(v uint32) { r.b = order.AppendUint32(r.b, v) }
func (r *reply) u64(v uint64) { r.b = order.AppendUint64(r.b, v) }

// begin begins an answer.
func (r *reply) begin(unique uint64) {
	r.start = len(r.b)
	r.u32(0) // the length, which end sets
	r.u32(0) // no error
	r.u64(unique)
}

// end ends an answer. With an error, the answer has no body.
func (r *reply) end(err unix.Errno) {
	if err != 0 {
		r.b = r.b[:r.start+replySize]
	}
	order.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start))
	order.PutUint32(r.b[r.start+4:], uint32(-int32(err)))
}

// forgetAttributes puts a notice before the answer: the kernel must ask for a node's attributes again. It leaves
// the node's pages alone, because a page may be locked for a READ whose answer follows.
func (r *reply) forgetAttributes(node, unique uint64) {
	r.b = r.b[:r.start]
	r.u32(replySize + 24)
	r.u32(notifyInvalInode)
	r.u64(0) // no request
	r.u64(node)
	r.u64(^uint64(0)) // offset -1: no pages
	r.u64(0)
	r.begin(unique)
}

// attr appends a struct fuse_attr.
func (r *reply) attr(st *unix.Stat_t, ids *owner) {
	r.u64(st.Ino)
	r.u64(uint64(st.Size))
	r.u64(uint64(st.Blocks))
	r.u64(uint64(st.Atim.Sec))
	r.u64(uint64(st.Mtim.Sec))
	r.u64(uint64(st.Ctim.Sec))
	r.u32(uint32(st.Atim.Nsec))
	r.u32(uint32(st.Mtim.Nsec))
	r.u32(uint32(st.Ctim.Nsec))
	r.u32(st.Mode)
	r.u32(uint32(st.Nlink))
	r.u32(toGuest(st.Uid, ids.uid))
	r.u32(toGuest(st.Gid, ids.gid))
	r.u32(uint32(st.Rdev))
	r.u32(uint32(st.Blksize))
	r.u32(0) // flags
}

// entry appends a struct fuse_entry_out.
func (r *reply) entry(n *node, st *unix.Stat_t, ids *owner) {
	r.u64(n.id)
	r.u64(0) // generation: no number is used twice
	r.u64(validSeconds)
	r.u64(validSeconds)
	r.u32(0)
	r.u32(0)
	r.attr(st, ids)
}

// attrOut appends a struct fuse_attr_out.
func (r *reply) attrOut(st *unix.Stat_t, ids *owner) {
	r.u64(validSeconds)
	r.u32(0)
	r.u32(0)
	r.attr(st, ids)
}

// open appends a struct fuse_open_out.
func (r *reply) open(handle uint64, flags uint32) {
	r.u64(handle)
	r.u32(flags)
	r.u32(0)
}

const (
	entrySize  = 128 // of a struct fuse_entry_out
	direntSize = 24  // of a struct fuse_dirent
)

// entryLen returns the size in bytes of a directory's entry with a name and attributes.
func entryLen(name string) int { return entrySize + (direntSize+len(name)+7)&^7 }

// dirent appends a struct fuse_dirent.
func (r *reply) dirent(ino, next uint64, mode uint32, name string) {
	r.u64(ino)
	r.u64(next)
	r.u32(uint32(len(name)))
	r.u32(mode & unix.S_IFMT >> 12)
	r.b = append(r.b, name...)
	for n := direntSize + len(name); n%8 != 0; n++ {
		r.b = append(r.b, 0)
	}
}

// An owner is the user of this process. The guest sees this user's files as root's.
type owner struct{ uid, gid uint32 }

// toGuest returns the identity that the guest sees. The guest's root and the user of this process
// change places.
func toGuest(id, own uint32) uint32 {
	switch id {
	case own:
		return 0
	case 0:
		return own
	}
	return id
}

// toHost is the inverse of toGuest.
func toHost(id, own uint32) uint32 { return toGuest(id, own) }
