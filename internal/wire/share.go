package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
)

// A ShareMode says what a guest may change in a directory of the host.
type ShareMode byte

const (
	ShareReadOnly ShareMode = iota // nothing
	ShareOverlay                   // anything; the changes stay in the guest
	ShareWrite                     // the host's files
)

// A Share is a directory of the host that the guest mounts.
type Share struct {
	Channel uint32 // of the disk, for the requests of the guest's FUSE file system
	Mode    ShareMode
	Point   string // where the guest mounts it: absolute and clean
}

// EncodeShares returns the payload of Mount. The guest mounts the shares in this order.
func EncodeShares(shares []Share) ([]byte, error) {
	var b []byte
	for _, s := range shares {
		if err := s.check(); err != nil {
			return nil, err
		}
		b = binary.BigEndian.AppendUint32(b, s.Channel)
		b = append(b, byte(s.Mode))
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.Point)))
		b = append(b, s.Point...)
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("mount: the shares take %d bytes: the limit is %d", len(b), maxPayload)
	}
	return b, nil
}

// DecodeShares decodes the payload of Mount.
func DecodeShares(b []byte) (shares []Share, err error) {
	const header = 4 + 1 + 2
	for len(b) > 0 {
		if len(b) < header {
			return nil, errors.New("mount: the payload ends too early")
		}
		s := Share{Channel: binary.BigEndian.Uint32(b), Mode: ShareMode(b[4])}
		n := int(binary.BigEndian.Uint16(b[5:]))
		if b = b[header:]; len(b) < n {
			return nil, errors.New("mount: the payload ends too early")
		}
		s.Point, b = string(b[:n]), b[n:]
		if err := s.check(); err != nil {
			return nil, err
		}
		shares = append(shares, s)
	}
	return shares, nil
}

func (s Share) check() error {
	switch p := s.Point; {
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.Contains(p, "\x00"):
		return fmt.Errorf("mount: %q is not a clean absolute path of a directory", p)
	case len(p) > maxPath:
		return fmt.Errorf("mount: a path of %d bytes: the limit is %d", len(p), maxPath)
	case s.Mode > ShareWrite:
		return fmt.Errorf("mount %s: unknown mode %d", p, s.Mode)
	}
	return nil
}
