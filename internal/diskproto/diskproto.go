// Package diskproto is what the guest and the harness agree on about the disk that carries bulk data
// between them.
//
// The disk is a channel and stores nothing. Its address space is divided into slots. To ask the harness,
// the guest writes a request at the start of a slot, and then reads the answer there. Both are a header of
// [HeaderSize] bytes, little-endian, and a payload:
//
//	magic   uint32  0x4b444847
//	number  uint32  of the request, chosen by the guest; the answer has it too
//	channel uint32  in a request: the harness's handler
//	status  uint32  in an answer
//	length  uint32  of the payload in bytes
//	        12 bytes of zero
//
// A transfer is padded with zeros to a multiple of [Sector] bytes. The kernel and QEMU may split it; each
// part has a place in the slot, and the parts may arrive in any order. The guest does not read before its
// whole request is written. A read that comes before the answer is there waits for at most [AnswerWithin]
// and then finds the status Pending, and the guest reads again. QEMU therefore never waits longer for the
// harness when it stops the machine.
//
// A slot without a request is all zeros. A guest finds zeros instead of an answer if its machine was saved
// after the request and is now restored, with another harness.
//
// The guest reads the answer with one transfer if it knows how long the answer is at most. Otherwise it
// reads the beginning, learns the length from the header, and reads the rest from the same slot.
package diskproto

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Serial is the serial number by which the guest finds the disk.
const Serial = "guesthouse"

const (
	Slots    = 32
	SlotSize = 2 << 20 // bytes; twice a message, so that a slot is a multiple of every page size
	Size     = Slots * SlotSize

	Sector     = 512
	HeaderSize = 32

	// MaxPayload is the length limit in bytes of a payload: 1 MiB, and a page for the header of a protocol
	// that has 1 MiB of data in a message.
	MaxPayload = 1<<20 + 4096
)

// AnswerWithin is how long a read of the disk waits for an answer.
const AnswerWithin = 200 * time.Millisecond

// A Status says what an answer is.
type Status uint32

const (
	Pending   Status = iota // there is no answer yet
	Done                    // the payload is the handler's answer
	Failed                  // the payload is the text of the handler's error
	NoChannel               // the harness has no such channel
)

// A Header is the beginning of a request or an answer.
type Header struct {
	Number  uint32
	Channel uint32
	Status  Status
	Length  int
}

const magic = 0x4b444847 // "GHDK"

// Put writes the header into the first HeaderSize bytes of b.
func (h Header) Put(b []byte) {
	for i, v := range []uint32{magic, h.Number, h.Channel, uint32(h.Status), uint32(h.Length), 0, 0, 0} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
}

// ParseHeader parses the first HeaderSize bytes of b.
func ParseHeader(b []byte) (Header, error) {
	le := binary.LittleEndian
	h := Header{Number: le.Uint32(b[4:]), Channel: le.Uint32(b[8:]), Status: Status(le.Uint32(b[12:])), Length: int(le.Uint32(b[16:]))}
	if got := le.Uint32(b); got != magic {
		return Header{}, fmt.Errorf("it begins with %08x, not with %08x", got, magic)
	}
	if h.Length < 0 || h.Length > MaxPayload {
		return Header{}, fmt.Errorf("a payload of %d bytes: the limit is %d", uint32(h.Length), MaxPayload)
	}
	return h, nil
}

// Padded returns the size in bytes of the transfer of a payload of n bytes, with its header and padding.
func Padded(n int) int { return (HeaderSize + n + Sector - 1) / Sector * Sector }
