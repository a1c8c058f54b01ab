// Package wire implements the protocol between the harness and the agent in the guest's init. They
// exchange messages in frames, on a line that neither loses nor repeats a byte. A bad frame therefore
// ends the conversation, and there is no resynchronization. The agent and the guest's program use the
// same protocol over a socket, with the agent in the role of the harness.
//
// A frame is a header of 28 bytes, big-endian, and a payload:
//
//	magic    uint32  0x47484147
//	version  uint16
//	type     uint16
//	epoch    uint32  of the conversation
//	sequence uint32  from 0 in each epoch and direction
//	answers  uint32  in an answer: the sequence number of the request; in a message about a command: that of Execute
//	length   uint32  of the payload
//	crc      uint32  CRC-32C of the first 24 bytes of the header and of the payload
//
// The first conversation has epoch 0 and begins with the guest's Hello. After a save, the harness
// opens a conversation with a new epoch, in the machine that continues and in each restored machine.
// The first frame of that conversation is Restored, and the guest adopts the new epoch from it.
package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"
)

// version is the version of the protocol. Both ends must use the same version.
const version = 5

// PortName is the name of the virtio-serial port.
const PortName = "guesthouse.agent"

// ProgramVariable is the environment variable that holds the number of the descriptor on which
// the guest's program talks to the agent. Init sets it.
const ProgramVariable = "GUESTHOUSE_AGENT"

// CoverDir is the guest's directory for the coverage data of programs that were built with -cover. Init makes
// it, and sets GOCOVERDIR to it.
const CoverDir = "/run/guesthouse/cover"

// BootIDFile holds the guest's BootID. Init writes the file and mounts it over
// /proc/sys/kernel/random/boot_id.
const BootIDFile = "/run/guesthouse/boot_id"

const (
	// MaxText is the length limit in bytes of a text, such as an event's.
	MaxText = 64 << 10

	maxPayload = 1 << 20 // bytes
)

// maxPayload returns the length limit in bytes of a type's payload. Neither end allocates memory for
// a longer payload.
func (t Type) maxPayload() int {
	switch t {
	case PowerOff, Event, Failed, Remark:
		return MaxText
	case Ended, Exited:
		return exitSize + MaxText
	case Refused:
		return refusalSize + MaxText
	case Execute:
		return MaxCommand
	case Data:
		return 1 + MaxData
	}
	return maxPayload
}

const (
	magic      = 0x47484147
	headerSize = 28
)

// A Type says what a message means.
type Type uint16

// The messages. The answer to a request has the request's type. "Harness" and "guest" say which end sends
// a message that is no request; requests come from the harness. Only one request is under way at a time. A
// call is a request that may take long: other requests and calls may be under way beside it.
//
// The agent answers Execute with Started or Refused. A command that was started has Data, Credit and Close
// on its streams, and ends with Exited. The ends of its output may come before or after Exited. The harness
// closes Stdin, and the guest Stdout and Stderr, to end the stream; the other end closes a stream to say
// that it reads no more of it.
const (
	Hello      Type = 1 + iota // guest: the conversation begins; payload BootID
	_                          // guests of an earlier version send it; it means nothing
	Restored                   // request: reseed the guest; payload Restore, answer Reseeded
	PowerOff                   // harness: power off; guest: the program is about to end, payload text: the reason
	Event                      // guest: payload text
	Statistics                 // request; answer Stats
	Quiesce                    // request: stop all programs and send nothing more until Restored
	Failed                     // guest: the agent has ended; payload text: the error
	WarmUp                     // request: echo datagrams until Quiesce or Restored; answer Port, 0 without a network
	Ended                      // guest: the program has ended, and the machine powers off; payload Exit
	Remark                     // guest: payload text for the record
	Execute                    // harness: run a command; payload Command
	Data                       // both: payload Stream, one byte, and bytes of it
	Exited                     // guest: a command has ended; payload Exit
	Kill                       // harness: kill a command and all its processes
	Subscribe                  // program: send Resume to it
	Resume                     // request: the machine is restored and has an owner; answered when the program has reacted
	Run                        // request: start the guest program of a platform; payload Program, answer text: why it was not started, or empty
	_                          // guests of an earlier version answer it; it means nothing
	Started                    // guest: a command runs
	Refused                    // guest: a command was not started; payload Refusal
	Credit                     // both: the sender of a stream may send more; payload Stream, one byte, and Number
	Close                      // both: the sender, or the reader, has closed a stream; payload Stream, one byte
	Signal                     // harness: send a signal to a command's process group; payload Number
	Resize                     // harness: a command's terminal has a new size; payload Size
	Coverage                   // request: send what the program has covered so far, in Covered; answered when all is sent
	Covered                    // guest: a piece of a file with coverage data; payload CoverPiece
	CopyIn                     // call: write what a channel of the disk sends; payload CopyRequest, answer Result
	CopyOut                    // call: send a file or a tree to a channel of the disk; payload CopyRequest, answer Result
	Look                       // call: describe or read a file; payload LookRequest, answer Result and what was asked for
	Mount                      // request: mount directories of the host; payload Shares, answer text: why they were not mounted, or empty
	Configure                  // request: configure the network; payload Network, answer text: why it was not configured, or empty
	lastType   = Configure
)

var typeNames = [...]string{Hello: "hello", Restored: "restored", PowerOff: "power-off", Event: "event",
	Statistics: "statistics", Quiesce: "quiesce", Failed: "failed", WarmUp: "warm-up", Ended: "ended", Remark: "remark",
	Execute: "execute", Data: "data", Exited: "exited", Kill: "kill", Subscribe: "subscribe", Resume: "resume",
	Started: "started", Refused: "refused", Credit: "credit", Close: "close", Signal: "signal", Resize: "resize",
	Run: "run", Coverage: "coverage", Covered: "covered", CopyIn: "copy in", CopyOut: "copy out", Look: "look", Mount: "mount",
	Configure: "configure"}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// A Message is a frame's content.
type Message struct {
	Type     Type
	Sequence uint32 // set by Send and Receive
	Answers  uint32
	Payload  []byte
}

// A Conn sends and receives messages. One goroutine may receive while others send.
type Conn struct {
	rw    io.ReadWriter
	guest bool
	at    int64 // how many bytes were received

	sending sync.Mutex // held while a message is sent
	frame   []byte     // of that message; reused if it is short

	mu      sync.Mutex // guards all fields below; never held during a read or a write
	epoch   uint32
	in, out uint32 // the next sequence numbers
	broken  error  // of a Send that left part of a frame
}

// NewGuest returns the guest's end.
func NewGuest(rw io.ReadWriter) *Conn { return &Conn{rw: rw, guest: true} }

// NewHarness returns the harness's end.
func NewHarness(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Open begins a conversation with another epoch. The harness calls it while the guest sends nothing,
// and must send Restored next.
func (c *Conn) Open(epoch uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch, c.in, c.out = epoch, 0, 0
}

// Epoch returns the epoch of the present conversation.
func (c *Conn) Epoch() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Next returns the sequence number that the next call of Send will use, if no other goroutine sends
// meanwhile.
func (c *Conn) Next() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out
}

// Send sends a message and returns its sequence number. After an error that leaves part of a frame
// on the line, every Send fails. A Send that blocks holds up only other calls of Send.
func (c *Conn) Send(m Message) (uint32, error) {
	if limit := m.Type.maxPayload(); len(m.Payload) > limit {
		return 0, fmt.Errorf("send %s: a payload of %d bytes: the limit is %d", m.Type, len(m.Payload), limit)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	frame, err := c.next(&m)
	if err != nil {
		return 0, err
	}
	n, err := c.rw.Write(frame)
	if c.frame = frame; cap(frame) > maxReused {
		c.frame = nil
	}
	if err == nil {
		return m.Sequence, nil
	}
	err = fmt.Errorf("send %s: %w", m.Type, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 {
		c.broken = err
	} else {
		c.out = m.Sequence
	}
	return 0, err
}

// maxReused is the length limit in bytes of the memory that Send keeps.
const maxReused = 64 << 10

// next numbers a message and returns its frame.
func (c *Conn) next(m *Message) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	m.Sequence = c.out
	c.out++ // here, because the answer may be received before Write returns
	return appendFrame(c.frame[:0], c.epoch, *m), nil
}

// Receive returns the next message. The error is io.EOF if the line ends between two frames. Every
// other error says what is wrong and at which byte the frame begins.
func (c *Conn) Receive() (Message, error) {
	start := c.at
	epoch, m, n, err := decode(c.rw)
	c.at += int64(n)
	if err == io.EOF {
		return m, err
	}
	if err == nil {
		err = c.follows(epoch, m)
	}
	if err != nil {
		return Message{}, fmt.Errorf("frame at byte %d: %w", start, err)
	}
	return m, nil
}

// follows checks that a message is the next one of its conversation. A guest starts a new
// conversation if the harness does.
func (c *Conn) follows(epoch uint32, m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guest && m.Type == Restored && m.Sequence == 0 && epoch != c.epoch {
		c.epoch, c.in, c.out = epoch, 0, 0
	}
	if epoch != c.epoch {
		return fmt.Errorf("%s of epoch %d in a conversation of epoch %d", m.Type, epoch, c.epoch)
	}
	if m.Sequence != c.in {
		return fmt.Errorf("%s has sequence number %d instead of %d: frames were lost or repeated", m.Type, m.Sequence, c.in)
	}
	c.in++
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b []byte, epoch uint32, m Message) []byte {
	b = slices.Grow(b, headerSize+len(m.Payload))
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type))
	for _, v := range []uint32{epoch, m.Sequence, m.Answers, uint32(len(m.Payload))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, m.Payload)
	return append(binary.BigEndian.AppendUint32(b, sum), m.Payload...)
}

// decode reads a frame of n bytes.
func decode(r io.Reader) (epoch uint32, m Message, n int, err error) {
	var h [headerSize]byte
	if n, err = io.ReadFull(r, h[:]); err != nil {
		if n > 0 {
			err = fmt.Errorf("the line ended after %d bytes of the header: %w", n, err)
		}
		return 0, m, n, err
	}
	if got := binary.BigEndian.Uint32(h[0:]); got != magic {
		return 0, m, n, fmt.Errorf("it begins with %q, not with %q", h[:4], "GHAG")
	}
	if got := binary.BigEndian.Uint16(h[4:]); got != version {
		return 0, m, n, fmt.Errorf("protocol version %d instead of %d: build guest and harness from the same source", got, version)
	}
	m.Type = Type(binary.BigEndian.Uint16(h[6:]))
	epoch = binary.BigEndian.Uint32(h[8:])
	m.Sequence = binary.BigEndian.Uint32(h[12:])
	m.Answers = binary.BigEndian.Uint32(h[16:])
	length := binary.BigEndian.Uint32(h[20:])
	if limit := m.Type.maxPayload(); length > uint32(limit) {
		return 0, m, n, fmt.Errorf("%s has a payload of %d bytes: the limit is %d", m.Type, length, limit)
	}
	m.Payload = make([]byte, length)
	k, err := io.ReadFull(r, m.Payload)
	n += k
	if err != nil {
		return 0, m, n, fmt.Errorf("the line ended after %d of %d bytes of the payload of %s: %w", k, length, m.Type, err)
	}
	sum := crc32.Update(crc32.Checksum(h[:24], castagnoli), castagnoli, m.Payload)
	if got := binary.BigEndian.Uint32(h[24:]); got != sum {
		return 0, m, n, fmt.Errorf("%s has checksum %08x, its bytes have %08x", m.Type, got, sum)
	}
	if m.Type < Hello || m.Type > lastType {
		return 0, m, n, fmt.Errorf("unknown message %s", m.Type)
	}
	return epoch, m, n, nil
}
