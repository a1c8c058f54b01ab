package wire

import (
	"encoding/binary"
	"errors"
)

// A CoverPiece is a piece of a file in CoverDir. The pieces of a file come in their order, and no piece of
// another file comes between them.
type CoverPiece struct {
	Name string // of the file, without a directory
	Data []byte // at most MaxCoverPiece bytes
	Last bool   // it ends the file
}

// MaxCoverPiece is the length limit in bytes of a piece's data.
const MaxCoverPiece = 256 << 10

// Encode returns the payload of Covered.
func (p CoverPiece) Encode() []byte {
	b := make([]byte, 0, 3+len(p.Name)+len(p.Data))
	last := byte(0)
	if p.Last {
		last = 1
	}
	b = append(b, last)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Name)))
	b = append(b, p.Name...)
	return append(b, p.Data...)
}

// DecodeCoverPiece decodes the payload of Covered.
func DecodeCoverPiece(b []byte) (p CoverPiece, err error) {
	if len(b) < 3 {
		return p, errors.New("covered: the payload ends too early")
	}
	n := int(binary.BigEndian.Uint16(b[1:]))
	if len(b) < 3+n {
		return p, errors.New("covered: the payload ends within the name")
	}
	return CoverPiece{Name: string(b[3 : 3+n]), Data: b[3+n:], Last: b[0] == 1}, nil
}
