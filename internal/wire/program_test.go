package wire

import (
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAProgramIsDecodedAsItWasEncoded(t *testing.T) {
	for _, p := range []Program{
		{},
		{Args: []string{"", "a b", "K=V"}},
		{Env: []string{"K=", "K=V=W\n"}},
		{Args: []string{"-v"}, Env: []string{"K=V"}},
	} {
		b, err := p.Encode()
		require.NoError(t, err)
		got, err := DecodeProgram(b)
		require.NoError(t, err)
		require.Equal(t, p, got)
		for n := range b {
			if d, err := DecodeProgram(b[:n]); err == nil { // cut off behind a variable
				require.Less(t, len(d.Env), len(p.Env))
			}
		}
	}
	for says, p := range map[string]Program{
		`argument "a\x00" of the guest program holds a NUL byte`:                          {Args: []string{"a\x00"}},
		`variable "=V" of the guest program: write KEY=VALUE without NUL bytes`:           {Env: []string{"=V"}},
		`variable "K=\x00" of the guest program: write KEY=VALUE without NUL bytes`:       {Env: []string{"K=\x00"}},
		"arguments and variables of the guest program have 1048581 bytes: the limit is 1": {Args: []string{strings.Repeat("a", maxPayload)}},
	} {
		_, err := p.Encode()
		require.ErrorContains(t, err, says)
	}
	for _, b := range []string{"", "\x00\x00\x00\x01", "\x00\x00\x00\x00a", "\x00\x00\x00\x00a\x00", "\xff\xff\xff\xffa\x00"} {
		_, err := DecodeProgram([]byte(b))
		require.Equal(t, errProgram, err, "%q", b)
	}
}

func TestAChunkIsDecodedAsItWasEncoded(t *testing.T) {
	file := File{Path: "/bin/uinit", Perm: 0o755, Size: 5}
	for _, c := range []Chunk{
		{File: file, Data: []byte("abcde")},
		{File: file, Offset: 4, Data: []byte("e")},
		{File: File{Path: "/empty"}, Data: []byte{}},
	} {
		b, err := c.Encode()
		require.NoError(t, err)
		got, err := DecodeChunk(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
		require.True(t, got.Last())
		_, err = DecodeChunk(b[:chunkHeader+len(c.File.Path)-1])
		require.EqualError(t, err, "deliver: the payload ends too early")
	}
	require.False(t, Chunk{File: file, Data: []byte("abcd")}.Last())
	for says, change := range map[string]func(*Chunk){
		`"bin/uinit" is not a clean absolute path of a file`:     func(c *Chunk) { c.File.Path = "bin/uinit" },
		`"/bin/../uinit" is not a clean absolute path`:           func(c *Chunk) { c.File.Path = "/bin/../uinit" },
		`"/" is not a clean absolute path`:                       func(c *Chunk) { c.File.Path = "/" },
		"a path of 5000 bytes: the limit is 4095":                func(c *Chunk) { c.File.Path = "/" + strings.Repeat("a", 4999) },
		"has more than permission bits":                          func(c *Chunk) { c.File.Perm |= fs.ModeSetuid },
		"a chunk of 262145 bytes: the limit is 262144":           func(c *Chunk) { c.Data = make([]byte, MaxChunk+1) },
		"a chunk of 5 bytes at 1 in a file of 5":                 func(c *Chunk) { c.Offset = 1 },
		"a chunk of 5 bytes at -1 in a file of 5":                func(c *Chunk) { c.Offset = -1 },
		"a chunk of 5 bytes at 9223372036854775807 in a file of": func(c *Chunk) { c.Offset = math.MaxInt64 },
		"an empty chunk of a file of 5 bytes":                    func(c *Chunk) { c.Data = nil },
	} {
		c := Chunk{File: file, Data: []byte("abcde")}
		change(&c)
		_, err := c.Encode()
		require.ErrorContains(t, err, says)
	}
}
