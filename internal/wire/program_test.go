package wire

import (
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
