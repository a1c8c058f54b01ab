package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"guesthouse.example/internal/diskproto"
)

// The network block device protocol, as far as QEMU's client uses it: the fixed newstyle negotiation and
// simple replies. Source: doc/proto.md of the NBD project.
const (
	nbdMagic    = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic = 0x49484156454f5054 // "IHAVEOPT"
	answerMagic = 0x0003e889045565a9
	requestWord = 0x25609513
	replyWord   = 0x67446698

	fixedNewstyle = 1 << 0
	noZeroes      = 1 << 1

	optAbort = 2
	optGo    = 7

	repAck         = 1
	repInfo        = 3
	repUnsupported = 1<<31 + 1

	infoExport = 0

	hasFlags = 1 << 0

	cmdRead       = 0
	cmdWrite      = 1
	cmdDisconnect = 2

	errInvalid = 22

	maxOption = 64 << 10 // bytes of an option's data
)

// Serve serves the disk until the connection ends, as it does when QEMU ends. It then ends all handlers and
// waits for them. It returns an error only if QEMU has broken the protocol.
func (s *Server) Serve() error {
	defer close(s.done)
	defer s.conn.Close()
	defer s.endCalls()
	r := bufio.NewReaderSize(s.conn, 4<<10)
	err := s.negotiate(r)
	for err == nil {
		err = s.serveRequest(r)
	}
	if broken, ok := errors.AsType[brokenError](err); ok {
		return broken
	}
	return nil
}

// A brokenError says how QEMU has broken the protocol.
type brokenError string

func (e brokenError) Error() string { return "the disk's connection: " + string(e) }

// endCalls ends all channels.
func (s *Server) endCalls() {
	s.cancel()
	s.mu.Lock()
	var channels []*Channel
	for _, c := range s.channels {
		channels = append(channels, c)
	}
	for i := range s.slots {
		for r := range s.slots[i].waiting {
			r.late.Stop()
		}
		s.slots[i].waiting = nil
	}
	s.mu.Unlock()
	for _, c := range channels {
		c.Close()
	}
}

var errDisconnected = errors.New("QEMU has disconnected")

func (s *Server) negotiate(r *bufio.Reader) error {
	be := binary.BigEndian
	hello := be.AppendUint64(nil, nbdMagic)
	hello = be.AppendUint64(hello, optionMagic)
	hello = be.AppendUint16(hello, fixedNewstyle|noZeroes)
	if _, err := s.conn.Write(hello); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(r, flags[:]); err != nil {
		return err
	}
	for {
		var h [16]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		option, length := be.Uint32(h[8:]), be.Uint32(h[12:])
		if got := be.Uint64(h[:]); got != optionMagic || length > maxOption {
			return brokenError(fmt.Sprintf("malformed option %x", h))
		}
		if _, err := r.Discard(int(length)); err != nil { // every export's name is this disk's
			return err
		}
		answer := func(kind uint32, data []byte) error {
			b := be.AppendUint64(nil, answerMagic)
			for _, v := range []uint32{option, kind, uint32(len(data))} {
				b = be.AppendUint32(b, v)
			}
			_, err := s.conn.Write(append(b, data...))
			return err
		}
		switch option {
		case optGo:
			export := be.AppendUint16(nil, infoExport)
			export = be.AppendUint64(export, diskproto.Size)
			export = be.AppendUint16(export, hasFlags)
			if err := answer(repInfo, export); err != nil {
				return err
			}
			return answer(repAck, nil)
		case optAbort:
			return errDisconnected
		default:
			if err := answer(repUnsupported, nil); err != nil {
				return err
			}
		}
	}
}

// serveRequest reads one request and begins to answer it.
func (s *Server) serveRequest(r *bufio.Reader) error {
	be := binary.BigEndian
	var h [28]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	if got := be.Uint32(h[:]); got != requestWord {
		return brokenError(fmt.Sprintf("a request begins with %08x, not with %08x", got, requestWord))
	}
	command, handle, offset, length := be.Uint16(h[6:]), be.Uint64(h[8:]), be.Uint64(h[16:]), be.Uint32(h[24:])
	valid := length <= diskproto.Size && offset <= diskproto.Size-uint64(length)
	// The guest's transfers lie in a slot. A program that reads the disk as a file may cross slots.
	inSlot := valid && offset%diskproto.SlotSize+uint64(length) <= diskproto.SlotSize
	switch {
	case command == cmdRead && inSlot:
		s.read(handle, int64(offset), int(length))
	case command == cmdRead && valid:
		s.send(handle, zeros(int(length)))
	case command == cmdWrite && inSlot:
		part := make([]byte, length)
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		s.write(int64(offset), part)
		s.send(handle, nil)
	case command == cmdWrite && length <= diskproto.Size:
		if _, err := r.Discard(int(length)); err != nil {
			return err
		}
		s.fail(handle)
	case command == cmdDisconnect:
		return errDisconnected
	case command == cmdWrite:
		return brokenError(fmt.Sprintf("a write of %d bytes", length))
	default:
		s.fail(handle)
	}
	return nil
}

// send answers a request with success and data. If the connection has ended, Serve finds out.
func (s *Server) send(handle uint64, data net.Buffers) { s.sendReply(handle, 0, data) }

func (s *Server) fail(handle uint64) { s.sendReply(handle, errInvalid, nil) }

func (s *Server) sendReply(handle uint64, code uint32, data net.Buffers) {
	b := binary.BigEndian.AppendUint32(nil, replyWord)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint64(b, handle)
	message := append(net.Buffers{b}, data...)
	s.replying.Lock()
	defer s.replying.Unlock()
	message.WriteTo(s.conn)
}
