package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// A Program says how init starts the guest program of a platform.
type Program struct {
	Args []string // without the program's name
	Env  []string // "KEY=VALUE", in addition to init's environment; the last value of a key counts
}

// Encode returns the payload of Run: the number of arguments, and the arguments and variables, each
// with a NUL byte behind it.
func (p Program) Encode() ([]byte, error) {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(p.Args)))
	for _, arg := range p.Args {
		if strings.Contains(arg, "\x00") {
			return nil, fmt.Errorf("argument %q of the guest program holds a NUL byte", arg)
		}
		b = append(append(b, arg...), 0)
	}
	for _, v := range p.Env {
		if strings.Contains(v, "\x00") || strings.Index(v, "=") < 1 {
			return nil, fmt.Errorf("variable %q of the guest program: write KEY=VALUE without NUL bytes", v)
		}
		b = append(append(b, v...), 0)
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("arguments and variables of the guest program have %d bytes: the limit is %d", len(b), maxPayload)
	}
	return b, nil
}

var errProgram = errors.New("run: malformed payload")

// DecodeProgram decodes the payload of Run.
func DecodeProgram(b []byte) (p Program, err error) {
	if len(b) < 4 {
		return p, errProgram
	}
	n := binary.BigEndian.Uint32(b)
	all := strings.SplitAfter(string(b[4:]), "\x00")
	if last := len(all) - 1; all[last] != "" || uint64(n) > uint64(last) {
		return p, errProgram
	}
	for i, s := range all[:len(all)-1] {
		s = s[:len(s)-1]
		if uint64(i) < uint64(n) {
			p.Args = append(p.Args, s)
		} else if strings.Index(s, "=") > 0 {
			p.Env = append(p.Env, s)
		} else {
			return Program{}, errProgram
		}
	}
	return p, nil
}

// maxPath is Linux's limit (PATH_MAX) in bytes, without the NUL.
const maxPath = 4095
