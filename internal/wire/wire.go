// Package wire is what the guest's agent and the harness say to each other, and
// how: frames over a line that neither loses nor doubles a byte. It needs no
// resynchronization; a bad frame ends the conversation. The agent lives in the
// guest's init. Between it and the guest's program the same frames go over a
// socket, with the agent in the harness's place.
//
// A frame is a header of 28 bytes, big-endian, and a payload:
//
//	magic    uint32  0x47484147
//	version  uint16
//	type     uint16
//	epoch    uint32  of the conversation
//	sequence uint32  from 0 in each epoch and direction
//	answers  uint32  the sequence number of the request that it answers
//	length   uint32  of the payload
//	crc      uint32  CRC-32C of the header before it and the payload
//
// The first conversation has epoch 0 and begins with the guest's hello. A guest
// that was saved and goes on, in the same machine or in another, has lost the
// harness it knew: the harness then opens a conversation with a new epoch, whose
// first frame is Restored, and the guest follows.
package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// version is the protocol's. Both ends must have the same.
const version = 2

// PortName is the virtio-serial port's.
const PortName = "guesthouse.agent"

// ProgramVariable is the environment variable by which init tells the guest's program the
// number of the descriptor that leads to the agent.
const ProgramVariable = "GUESTHOUSE_AGENT"

// BootIDFile is the guest's file with its BootID. Init writes it, and mounts it over
// /proc/sys/kernel/random/boot_id.
const BootIDFile = "/run/guesthouse/boot_id"

const (
	// MaxText is the longest text in bytes of a message that tells one, as an event does.
	MaxText = 64 << 10

	maxPayload = 1 << 20 // bytes
)

// most returns the longest payload of a type in bytes. Nobody makes room for a longer one.
func (t Type) most() int {
	switch t {
	case PowerOff, Event, Failed, Remark, Execute, Output:
		return MaxText
	case Ended, Exited:
		return exitSize + MaxText
	}
	return maxPayload
}

const (
	magic      = 0x47484147
	headerSize = 28
)

// A Type says what a message means.
type Type uint16

// The messages. A request is answered by a message of the same type, but for Execute.
const (
	Hello      Type = 1 + iota // guest: the conversation begins; payload Identity
	_                          // guests of an earlier version send it; it means nothing
	Restored                   // request: payload Restore; answered with Renewed
	PowerOff                   // harness: power off; guest: the program is about to end in order, payload is text that says why
	Event                      // guest: payload is text
	Statistics                 // request without payload; answered with Stats
	Quiesce                    // request: stop all programs, and say nothing more until Restored; no payload
	Failed                     // guest: the agent has ended; payload is text
	Rehearse                   // request without payload: echo datagrams until Quiesce or Restored; answered with Port, 0 if there is none
	Ended                      // guest: the program has, and the machine powers off; payload Exit
	Remark                     // guest: payload is text for the record
	Execute                    // harness: run a command, payload Args; answered by Output and at last Exited
	Output                     // guest: what a command has written; payload is Stdout or Stderr and the bytes
	Exited                     // guest: a command has ended; payload Exit
	Kill                       // harness: end a command with all that it has started; payload is the Number of its Execute
	Attends                    // program: it wants to hear of Resume
	Resume                     // request without payload: the machine is restored and somebody's; answered when the program has done what it does then
	lastType   = Resume
)

// The streams of a command's Output.
const (
	Stdout byte = 1
	Stderr byte = 2
)

var typeNames = [...]string{Hello: "hello", Restored: "restored", PowerOff: "power-off", Event: "event",
	Statistics: "statistics", Quiesce: "quiesce", Failed: "failed", Rehearse: "rehearse", Ended: "ended", Remark: "remark",
	Execute: "execute", Output: "output", Exited: "exited", Kill: "kill", Attends: "attends", Resume: "resume"}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// A Message is a frame without what guards it.
type Message struct {
	Type     Type
	Sequence uint32 // set by Send and Receive
	Answers  uint32
	Payload  []byte
}

// A Conn sends and receives messages. One goroutine may receive while others
// send.
type Conn struct {
	rw    io.ReadWriter
	guest bool
	at    int64 // bytes received

	sending sync.Mutex // held while a message is sent

	mu      sync.Mutex // of all below; held neither while a byte is read nor while one is written
	epoch   uint32
	in, out uint32 // sequence numbers
	broken  error  // of a send
}

// NewGuest returns the guest's end.
func NewGuest(rw io.ReadWriter) *Conn { return &Conn{rw: rw, guest: true} }

// NewHarness returns the harness's end.
func NewHarness(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Open begins a conversation with an epoch that is not the present one; the
// harness's next message must be Restored. The guest must be quiet.
func (c *Conn) Open(epoch uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch, c.in, c.out = epoch, 0, 0
}

// Epoch returns the present conversation's.
func (c *Conn) Epoch() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Next returns the sequence number of the message that is sent next, for an end
// that sends one at a time.
func (c *Conn) Next() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out
}

// Send sends a message and returns its sequence number. After an error that has
// left half a frame nothing more is sent. A Send that blocks holds up no other
// call but Send.
func (c *Conn) Send(m Message) (uint32, error) {
	if most := m.Type.most(); len(m.Payload) > most {
		return 0, fmt.Errorf("send %s: a payload of %d bytes: the most is %d", m.Type, len(m.Payload), most)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	frame, err := c.next(&m)
	if err != nil {
		return 0, err
	}
	n, err := c.rw.Write(frame)
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

// next numbers a message and returns its frame.
func (c *Conn) next(m *Message) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	m.Sequence = c.out
	c.out++ // the answer may be received before Write returns
	return encode(c.epoch, *m), nil
}

// Receive returns the next message. io.EOF is an end between two frames; every
// other error says what is wrong and at which byte the frame began.
func (c *Conn) Receive() (Message, error) {
	begin := c.at
	epoch, m, n, err := decode(c.rw)
	c.at += int64(n)
	if err == io.EOF {
		return m, err
	}
	if err == nil {
		err = c.follows(epoch, m)
	}
	if err != nil {
		return Message{}, fmt.Errorf("frame at byte %d: %w", begin, err)
	}
	return m, nil
}

// follows checks that a message is the next one of its conversation, and lets
// the guest follow the harness into another.
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
		return fmt.Errorf("%s has sequence number %d where %d was due: frames were lost or doubled", m.Type, m.Sequence, c.in)
	}
	c.in++
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encode(epoch uint32, m Message) []byte {
	b := make([]byte, 0, headerSize+len(m.Payload))
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type))
	for _, v := range []uint32{epoch, m.Sequence, m.Answers, uint32(len(m.Payload))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, m.Payload)
	return append(binary.BigEndian.AppendUint32(b, sum), m.Payload...)
}

// decode reads a frame; n is how many bytes it took.
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
		return 0, m, n, fmt.Errorf("protocol version %d where %d is spoken: build guest and harness from the same source", got, version)
	}
	m.Type = Type(binary.BigEndian.Uint16(h[6:]))
	epoch = binary.BigEndian.Uint32(h[8:])
	m.Sequence = binary.BigEndian.Uint32(h[12:])
	m.Answers = binary.BigEndian.Uint32(h[16:])
	length := binary.BigEndian.Uint32(h[20:])
	if most := m.Type.most(); length > uint32(most) {
		return 0, m, n, fmt.Errorf("%s has a payload of %d bytes: the most is %d", m.Type, length, most)
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
