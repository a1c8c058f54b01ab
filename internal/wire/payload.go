package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// A BootID identifies one boot or one restore of a machine.
type BootID [16]byte

// String returns the form of /proc/sys/kernel/random/boot_id.
func (id BootID) String() string {
	text := make([]byte, 0, 36)
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, []byte{b})
	}
	return string(text)
}

// ParseBootID parses what String returns.
func ParseBootID(text string) (id BootID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), "-", ""))
	if err == nil && len(b) != len(id) {
		err = fmt.Errorf("%d bytes, not %d", len(b), len(id))
	}
	if err != nil {
		return id, fmt.Errorf("boot identity %q: %w", text, err)
	}
	copy(id[:], b)
	return id, nil
}

// MinEntropy is the minimal number of random bytes in a Restore.
const MinEntropy = 32

// A Restore holds the values that a guest gets after a save, before its programs continue.
type Restore struct {
	Boot    BootID
	Now     time.Time // the host's clock
	Entropy []byte    // at least MinEntropy bytes

	// Network, if it has cards, replaces the network that the guest had when it was saved.
	Network Network
}

// Encode returns the payload.
func (r Restore) Encode() []byte {
	b := append([]byte(nil), r.Boot[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Now.UnixNano()))
	return append(appendSized(b, r.Entropy), r.Network.Encode()...)
}

// DecodeRestore decodes the payload of Restored.
func DecodeRestore(b []byte) (r Restore, err error) {
	const header = 16 + 8 + 2 // boot identity, clock, the length of the entropy
	if len(b) < header+MinEntropy {
		return r, fmt.Errorf("restored: a payload of %d bytes: boot identity, clock and entropy take at least %d", len(b), header+MinEntropy)
	}
	copy(r.Boot[:], b)
	r.Now = time.Unix(0, int64(binary.BigEndian.Uint64(b[16:])))
	n := int(binary.BigEndian.Uint16(b[24:]))
	if b = b[header:]; n < MinEntropy || len(b) < n {
		return r, fmt.Errorf("restored: %d bytes of entropy: the least is %d, and %d bytes follow", n, MinEntropy, len(b))
	}
	r.Entropy = b[:n]
	r.Network, err = DecodeNetwork(b[n:])
	return r, err
}

// Reseeded is a guest's answer to Restored.
type Reseeded struct {
	Clock      time.Time // the guest's
	Subscribed bool      // the guest's program wants Resume
}

// Encode returns the payload.
func (r Reseeded) Encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(r.Clock.UnixNano())), flag(r.Subscribed))
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// DecodeReseeded decodes the payload of the answer to Restored.
func DecodeReseeded(b []byte) (Reseeded, error) {
	if len(b) != 9 || b[8] > 1 {
		return Reseeded{}, fmt.Errorf("restored: malformed answer %q", b[:min(len(b), 9)])
	}
	return Reseeded{time.Unix(0, int64(binary.BigEndian.Uint64(b))), b[8] == 1}, nil
}

// EncodePort returns the payload of the answer to WarmUp: a UDP port.
func EncodePort(port int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(port)) }

// DecodePort decodes the payload of the answer to WarmUp.
func DecodePort(b []byte) (int, error) {
	if len(b) != 2 {
		return 0, fmt.Errorf("port: %d bytes, not 2", len(b))
	}
	return int(binary.BigEndian.Uint16(b)), nil
}

// An Exit is how a program ended.
type Exit struct {
	Status int    // 0 to 255; it means nothing after a signal
	Signal int    // the signal that ended the program; 0 if it exited
	Asked  bool   // the program had been asked to end
	Why    string // what the kernel said about the end; usually empty
}

// String returns "exit status 3" or "signal 9 (killed)", for example.
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("signal %d (%v)", e.Signal, syscall.Signal(e.Signal))
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Encode returns the payload.
func (e Exit) Encode() []byte {
	return append([]byte{byte(e.Status), byte(e.Signal), flag(e.Asked)}, e.Why[:min(len(e.Why), MaxText)]...)
}

// exitSize is the size in bytes of an Exit without Why.
const exitSize = 3

// DecodeExit decodes the payload of Ended and Exited.
func DecodeExit(b []byte) (Exit, error) {
	if len(b) < exitSize || b[2] > 1 {
		return Exit{}, fmt.Errorf("exit status: malformed payload %q", b[:min(len(b), exitSize)])
	}
	return Exit{Status: int(b[0]), Signal: int(b[1]), Asked: b[2] == 1, Why: string(b[exitSize:])}, nil
}

// Stats are the statistics of a guest and its socket services.
type Stats struct {
	Boot                     BootID
	Uptime                   time.Duration // since the kernel started, without the time for which the machine was saved
	MemoryTotal, MemoryAvail uint64        // bytes
	Services                 []Service
}

// A Service is a socket service with its counters.
type Service struct {
	Name          string
	Sockets       uint32
	Calls, Errors uint64
	Time, MaxTime time.Duration // in its handler: the total and the longest call
}

// Encode returns the payload.
func (s Stats) Encode() []byte {
	b := append([]byte(nil), s.Boot[:]...)
	for _, v := range []uint64{uint64(s.Uptime), s.MemoryTotal, s.MemoryAvail} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, svc := range s.Services {
		name := svc.Name[:min(len(svc.Name), 0xffff)]
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
		b = binary.BigEndian.AppendUint32(b, svc.Sockets)
		for _, v := range []uint64{svc.Calls, svc.Errors, uint64(svc.Time), uint64(svc.MaxTime)} {
			b = binary.BigEndian.AppendUint64(b, v)
		}
	}
	return b
}

var errStats = errors.New("statistics: the payload ends too early")

// DecodeStats decodes the payload of the answer to Statistics.
func DecodeStats(b []byte) (s Stats, err error) {
	if len(b) < 40 {
		return s, errStats
	}
	copy(s.Boot[:], b)
	s.Uptime = time.Duration(binary.BigEndian.Uint64(b[16:]))
	s.MemoryTotal = binary.BigEndian.Uint64(b[24:])
	s.MemoryAvail = binary.BigEndian.Uint64(b[32:])
	for b = b[40:]; len(b) > 0; {
		if len(b) < 2 {
			return s, errStats
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < n+36 {
			return s, errStats
		}
		svc := Service{Name: string(b[:n])}
		b = b[n:]
		svc.Sockets = binary.BigEndian.Uint32(b)
		svc.Calls = binary.BigEndian.Uint64(b[4:])
		svc.Errors = binary.BigEndian.Uint64(b[12:])
		svc.Time = time.Duration(binary.BigEndian.Uint64(b[20:]))
		svc.MaxTime = time.Duration(binary.BigEndian.Uint64(b[28:]))
		s.Services = append(s.Services, svc)
		b = b[36:]
	}
	return s, nil
}
