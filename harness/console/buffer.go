package console

import "bytes"

const keepConsole = 16 << 20 // bytes of the log, and of the text, that are kept in memory

// A buffer keeps the end of a stream of bytes. Its offsets count the dropped bytes too. Bytes that
// were appended are never overwritten, so that a view may hold them without a lock.
type buffer struct {
	bytes []byte
	base  int64 // bytes that were dropped from the front
}

// end returns the offset of the next byte.
func (b *buffer) end() int64 { return b.base + int64(len(b.bytes)) }

// from returns the bytes from an offset on that are kept, and how many bytes after the offset were dropped.
func (b *buffer) from(at int64) (text []byte, lost int64) {
	lost = max(0, b.base-at)
	return b.bytes[at+lost-b.base:], lost
}

// trim drops the oldest bytes when there are more than 2*keepConsole. It drops complete lines unless the
// last of them is long.
func (b *buffer) trim() {
	if len(b.bytes) <= 2*keepConsole {
		return
	}
	drop := len(b.bytes) - keepConsole
	if nl := bytes.LastIndexByte(b.bytes[drop-overlap:drop], '\n'); nl >= 0 {
		drop += nl + 1 - overlap
	}
	b.base += int64(drop)
	b.bytes = bytes.Clone(b.bytes[drop:])
}

// appendLines appends the guest's bytes to a log in which "\r\n" is "\n". It holds back a "\r" at
// their end until the next call. heldCR says whether the previous call held one back, and the second
// result says whether this call did.
func appendLines(log, p []byte, heldCR bool) ([]byte, bool) {
	if heldCR && len(p) > 0 && p[0] != '\n' {
		log = append(log, '\r')
	}
	for len(p) > 0 {
		at := bytes.IndexByte(p, '\r')
		if at < 0 {
			return append(log, p...), false
		}
		log, p = append(log, p[:at]...), p[at+1:]
		if len(p) == 0 {
			return log, true
		}
		if p[0] != '\n' {
			log = append(log, '\r')
		}
	}
	return log, heldCR
}
