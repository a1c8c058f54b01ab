package share

import "golang.org/x/sys/unix"

// Requests that this package answers, by include/uapi/linux/fuse.h.
const (
	opForget      = 2
	opGetattr     = 3
	opStatfs      = 17
	opInit        = 26
	opBatchForget = 42
)

// The protocol's version. Minor 31 has every request that the harness answers and no structure that is larger.
const (
	major = 7
	minor = 31
)

// Flags of INIT.
const (
	initAsyncRead     = 1 << 0
	initAtomicTrunc   = 1 << 3 // OPEN truncates
	initBigWrites     = 1 << 5
	initAutoInval     = 1 << 12 // another size or modification time empties the page cache
	initReaddirplus   = 1 << 13
	initParallelDirop = 1 << 18
	initMaxPages      = 1 << 22
)

// ownAnswer answers what the harness need not know of: the beginning of a connection, and, if empty, every
// request, as an empty directory answers it. It returns false for the harness's requests. The answer is nil
// if the request has none.
//
// Nothing that the kernel learns from an empty directory is valid for longer than the request.
func ownAnswer(request []byte, empty bool) (answer []byte, own bool) {
	switch op := order.Uint32(request[4:]); {
	case op == opInit:
		return agree(request), true
	case !empty:
		return nil, false
	case op == opForget, op == opBatchForget:
		return nil, true
	case op == opGetattr: // a struct fuse_attr_out
		attr := make([]byte, 104)
		order.PutUint64(attr[16:], 1)                     // the inode
		order.PutUint32(attr[16+60:], unix.S_IFDIR|0o755) // the mode
		order.PutUint32(attr[16+64:], 2)                  // the number of links
		return done(request, attr), true
	case op == opStatfs: // a struct fuse_statfs_out
		st := make([]byte, 80)
		order.PutUint32(st[40:], 4096) // the block size
		order.PutUint32(st[44:], 255)  // the longest name
		return done(request, st), true
	}
	return failed(request, unix.ENOSYS), true
}

// agree answers INIT with what the harness can do.
func agree(request []byte) []byte {
	if len(request) < headerSize+16 || order.Uint32(request[headerSize:]) != major {
		return failed(request, unix.EPROTO)
	}
	in := request[headerSize:]
	const can = initAsyncRead | initAtomicTrunc | initBigWrites | initAutoInval | initReaddirplus | initParallelDirop | initMaxPages
	out := make([]byte, 64) // a struct fuse_init_out
	order.PutUint32(out, major)
	order.PutUint32(out[4:], min(minor, order.Uint32(in[4:])))
	order.PutUint32(out[8:], maxData) // of reading ahead; the kernel takes the smaller one
	order.PutUint32(out[12:], order.Uint32(in[12:])&can)
	order.PutUint16(out[16:], 16) // requests in the background
	order.PutUint16(out[18:], 12) // of these, before the kernel thinks that they congest
	order.PutUint32(out[20:], maxData)
	order.PutUint32(out[24:], 1) // nanosecond: the resolution of times
	order.PutUint16(out[28:], maxData/4096)
	return done(request, out)
}

// done returns the answer to a request, with a body.
func done(request, body []byte) []byte {
	return append(header(request, replySize+len(body), 0), body...)
}

// failed returns the answer to a request that has failed.
func failed(request []byte, errno unix.Errno) []byte { return header(request, replySize, errno) }

func header(request []byte, size int, errno unix.Errno) []byte {
	b := make([]byte, replySize, size)
	order.PutUint32(b, uint32(size))
	order.PutUint32(b[4:], uint32(-int32(errno)))
	copy(b[8:], request[8:16])
	return b
}
