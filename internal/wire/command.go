package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// A Stream is one of a command's standard streams.
type Stream byte

// The streams, with their numbers as descriptors of the command.
const (
	Stdin Stream = iota
	Stdout
	Stderr
	Streams // how many there are
)

var streamNames = [...]string{"stdin", "stdout", "stderr"}

func (s Stream) String() string {
	if s < Streams {
		return streamNames[s]
	}
	return fmt.Sprintf("stream %d", byte(s))
}

// A Command says how the agent starts a command.
type Command struct {
	Args []string // the command's name and its arguments
	Env  []string // "KEY=VALUE"; nil is init's environment
	Dir  string   // the working directory; "" is /

	// Piped holds the streams that the line carries. A command has /dev/null for the others.
	Piped [Streams]bool
	// Merged makes Stderr the same pipe as Stdout.
	Merged bool
	// Terminal makes all streams a new terminal, which the command controls, of Size.
	Terminal bool
	Size     Size
}

// A Size is that of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// MaxCommand is the length limit in bytes of a command's payload. It is also Linux's limit for the
// arguments and the environment of a program.
const MaxCommand = 2 << 20

const (
	merged = 1 << (Streams + iota)
	terminal
	environment
	commandFlags = environment<<1 - 1

	commandHeader = 1 + 2 + 2 + 4 // flags, rows, columns, the number of arguments
)

// Encode returns the payload of Execute. After the header come the directory, the arguments and the
// environment, each with a NUL behind it.
func (c Command) Encode() ([]byte, error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return nil, errors.New("a command without a name")
	}
	var flags byte
	for s, piped := range c.Piped {
		flags |= flag(piped) << s
	}
	flags |= flag(c.Merged)*merged | flag(c.Terminal)*terminal | flag(c.Env != nil)*environment
	b := binary.BigEndian.AppendUint16([]byte{flags}, c.Size.Rows)
	b = binary.BigEndian.AppendUint16(b, c.Size.Columns)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.Args)))
	for _, part := range []struct {
		what string
		all  []string
	}{{"its directory", []string{c.Dir}}, {"an argument", c.Args}, {"a variable of its environment", c.Env}} {
		for _, s := range part.all {
			if strings.Contains(s, "\x00") {
				return nil, fmt.Errorf("%s holds a NUL byte: %.80q", part.what, s)
			}
			b = append(append(b, s...), 0)
		}
	}
	if len(b) > MaxCommand {
		return nil, fmt.Errorf("its arguments and environment have %d bytes: the limit is %d", len(b), MaxCommand)
	}
	return b, nil
}

// DecodeCommand decodes the payload of Execute.
func DecodeCommand(b []byte) (c Command, err error) {
	if len(b) <= commandHeader || b[0] > commandFlags || b[len(b)-1] != 0 {
		return c, errors.New("execute: malformed payload")
	}
	flags := b[0]
	for s := range c.Piped {
		c.Piped[s] = flags&(1<<s) != 0
	}
	c.Merged, c.Terminal = flags&merged != 0, flags&terminal != 0
	c.Size = Size{binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[3:])}
	n := binary.BigEndian.Uint32(b[5:])
	all := strings.Split(string(b[commandHeader:len(b)-1]), "\x00")
	if n == 0 || uint64(n) >= uint64(len(all)) || all[1] == "" {
		return Command{}, errors.New("execute: a command without a name")
	}
	c.Dir, c.Args = all[0], all[1:1+n]
	switch env := all[1+n:]; {
	case flags&environment != 0:
		c.Env = env
	case len(env) > 0:
		return Command{}, errors.New("execute: malformed payload")
	}
	return c, nil
}

// A Refusal says why a command was not started.
type Refusal struct {
	Status int    // as in a shell: 127 if there is no such command, 126 if it cannot be run
	Errno  uint16 // Linux's number of the error, as on every target; 0 if there is none
	Why    string
}

// Encode returns the payload.
func (r Refusal) Encode() []byte {
	return append(binary.BigEndian.AppendUint16([]byte{byte(r.Status)}, r.Errno), r.Why[:min(len(r.Why), MaxText)]...)
}

// refusalSize is the size in bytes of a Refusal without Why.
const refusalSize = 3

// DecodeRefusal decodes the payload of Refused.
func DecodeRefusal(b []byte) (Refusal, error) {
	if len(b) < refusalSize {
		return Refusal{}, fmt.Errorf("refused: a payload of %d bytes", len(b))
	}
	return Refusal{int(b[0]), binary.BigEndian.Uint16(b[1:]), string(b[refusalSize:])}, nil
}

// EncodeStream returns the payload of Close.
func EncodeStream(s Stream) []byte { return []byte{byte(s)} }

// DecodeStream returns the stream of Data, Credit or Close, and the rest of the payload.
func DecodeStream(b []byte) (Stream, []byte, error) {
	if len(b) == 0 || Stream(b[0]) >= Streams {
		return 0, nil, fmt.Errorf("%d bytes for no stream of a command", len(b))
	}
	return Stream(b[0]), b[1:], nil
}

// EncodeCredit returns the payload of Credit: a number of bytes.
func EncodeCredit(s Stream, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(s)}, uint32(n))
}

// EncodeNumber returns the payload of Signal: the signal's number.
func EncodeNumber(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// DecodeNumber decodes the payload of Signal, and that of Credit after its stream.
func DecodeNumber(b []byte) (uint32, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("number: %d bytes, not 4", len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}

// Encode returns the payload of Resize.
func (s Size) Encode() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.Rows), s.Columns)
}

// DecodeSize decodes the payload of Resize.
func DecodeSize(b []byte) (Size, error) {
	if len(b) != 4 {
		return Size{}, fmt.Errorf("terminal size: %d bytes, not 4", len(b))
	}
	return Size{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}, nil
}
