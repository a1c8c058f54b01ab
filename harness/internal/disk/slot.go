package disk

import (
	"net"
	"time"

	"guesthouse.example/internal/diskproto"
)

// A slot is a place for one request and its answer.
type slot struct {
	// A request that arrives. Its parts arrive in any order.
	request  []byte
	received int // bytes

	requests uint64 // counts the requests, so that a late answer is told from a present one
	working  bool   // a request has arrived, and its answer is not there yet
	busy     bool   // a handler runs, for this request or an earlier one
	next     []byte // the payload of the request that waits for that handler; header is its header

	header  diskproto.Header // of the request or its answer
	payload []byte           // of the answer
	answers bool             // there is an answer
	waiting map[*read]struct{}
}

// A read is a read of the disk that waits for an answer.
type read struct {
	handle         uint64
	offset, length int // in the slot
	late           *time.Timer
}

// write takes a part of a request. When the request is complete, its channel handles it on a new goroutine.
// The part does not cross the end of a slot.
func (s *Server) write(offset int64, part []byte) {
	s.mu.Lock()
	replies := s.receive(&s.slots[offset/diskproto.SlotSize], int(offset%diskproto.SlotSize), part)
	s.mu.Unlock()
	s.sendAll(replies)
}

// receive takes a part of a slot's request. The caller holds the server's mu, and sends the replies without it.
func (s *Server) receive(sl *slot, at int, part []byte) (replies []reply) {
	if sl.received == 0 {
		sl.requests++
		sl.working, sl.answers, sl.next = false, false, nil
	}
	if missing := at + len(part) - len(sl.request); missing > 0 {
		sl.request = append(sl.request, make([]byte, missing)...)
	}
	copy(sl.request[at:], part)
	sl.received += len(part)
	if len(sl.request) < diskproto.HeaderSize {
		return nil
	}
	h, err := diskproto.ParseHeader(sl.request)
	switch {
	case err != nil && at > 0:
		return nil // the part with the header is missing
	case err != nil:
		sl.received, sl.request = 0, nil
		return sl.reply(diskproto.Header{Status: diskproto.Failed}, []byte("malformed request: "+err.Error()))
	case sl.received < diskproto.Padded(h.Length):
		return nil
	}
	request := sl.request[diskproto.HeaderSize : diskproto.HeaderSize+h.Length]
	sl.received, sl.request = 0, nil
	sl.working, sl.header = true, h
	if sl.busy {
		// A guest that does not wait for answers cannot have more than one handler a slot.
		sl.next = request
		return nil
	}
	return s.handle(sl, request)
}

// handle lets the channel of a slot's request handle it. The caller holds the server's mu, and sends the replies
// without it.
func (s *Server) handle(sl *slot, request []byte) (replies []reply) {
	h, requests := sl.header, sl.requests
	c := s.channels[h.Channel]
	if c == nil {
		h.Status = diskproto.NoChannel
		return sl.reply(h, nil)
	}
	sl.busy = true
	c.calls.Go(func() {
		h.Status = diskproto.Done
		answer, err := c.handler(c.ctx, request)
		if err != nil {
			answer, h.Status = []byte(err.Error()), diskproto.Failed
		}
		s.mu.Lock()
		var replies []reply
		if sl.requests == requests {
			replies = sl.reply(h, answer)
		}
		sl.busy = false
		if next := sl.next; next != nil {
			sl.next = nil
			replies = s.handle(sl, next)
		}
		s.mu.Unlock()
		s.sendAll(replies)
	})
	return nil
}

// reply sets a slot's answer and returns the replies to the reads that wait for it. The caller holds the
// server's mu, and sends the replies without it.
func (sl *slot) reply(h diskproto.Header, payload []byte) (replies []reply) {
	h.Length = len(payload)
	sl.header, sl.payload, sl.answers, sl.working = h, payload, true, false
	for r := range sl.waiting {
		delete(sl.waiting, r)
		if r.late.Stop() {
			replies = append(replies, reply{r.handle, sl.content(r.offset, r.length)})
		}
	}
	return replies
}

// A reply is the answer to a read of the disk.
type reply struct {
	handle  uint64
	content net.Buffers
}

func (s *Server) sendAll(replies []reply) {
	for _, r := range replies {
		s.send(r.handle, r.content)
	}
}

// read answers a read of the disk, at once or when the slot has an answer. The read does not cross the end
// of a slot.
func (s *Server) read(handle uint64, offset int64, length int) {
	sl, at := &s.slots[offset/diskproto.SlotSize], int(offset%diskproto.SlotSize)
	s.mu.Lock()
	sl.received, sl.request = 0, nil // the rest of an incomplete request does not arrive any more
	if sl.working {
		r := &read{handle: handle, offset: at, length: length}
		pending := diskproto.Header{Number: sl.header.Number, Channel: sl.header.Channel, Status: diskproto.Pending}
		r.late = time.AfterFunc(diskproto.AnswerWithin, func() {
			s.mu.Lock()
			delete(sl.waiting, r)
			s.mu.Unlock()
			s.send(handle, content(pending, nil, at, length))
		})
		if sl.waiting == nil {
			sl.waiting = make(map[*read]struct{})
		}
		sl.waiting[r] = struct{}{}
		s.mu.Unlock()
		return
	}
	reply := sl.content(at, length)
	s.mu.Unlock()
	s.send(handle, reply)
}

// content returns a part of the slot's answer. The caller holds the server's mu.
func (sl *slot) content(offset, length int) net.Buffers {
	if !sl.answers {
		return zeros(length)
	}
	return content(sl.header, sl.payload, offset, length)
}

// content returns a part of a header and its payload, padded with zeros.
func content(h diskproto.Header, payload []byte, offset, length int) (content net.Buffers) {
	header := make([]byte, diskproto.HeaderSize)
	h.Put(header)
	for _, piece := range [][]byte{header, payload} {
		piece, offset = piece[min(offset, len(piece)):], max(0, offset-len(piece))
		piece = piece[:min(length, len(piece))]
		length -= len(piece)
		content = append(content, piece)
	}
	return append(content, zeros(length)...)
}

var zero [64 << 10]byte

func zeros(length int) (content net.Buffers) {
	for length > 0 {
		n := min(length, len(zero))
		content = append(content, zero[:n])
		length -= n
	}
	return content
}
