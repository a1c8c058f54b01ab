package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSharesTravel(t *testing.T) {
	shares := []Share{{Channel: 1, Point: "/a"}, {Channel: 1 << 31, Mode: ShareOverlay, Point: "/a/b c"}, {Channel: 3, Mode: ShareWrite, Point: "/ä\xff"}}
	b, err := EncodeShares(shares)
	require.NoError(t, err)
	got, err := DecodeShares(b)
	require.NoError(t, err)
	require.Equal(t, shares, got)
	for n := range b {
		if got, err := DecodeShares(b[:n]); err == nil {
			require.Less(t, len(got), len(shares))
		}
	}
}

func TestMalformedSharesAreRefused(t *testing.T) {
	for want, s := range map[string]Share{
		`"" is not a clean absolute path`:    {},
		`"/" is not a clean absolute path`:   {Point: "/"},
		`"a/b" is not a clean absolute path`: {Point: "a/b"},
		`"/a/../b" is not a clean`:           {Point: "/a/../b"},
		`"/a\x00b" is not a clean`:           {Point: "/a\x00b"},
		"a path of 5001 bytes":               {Point: "/" + strings.Repeat("a", 5000)},
		"mount /a: unknown mode 3":           {Point: "/a", Mode: 3},
	} {
		_, err := EncodeShares([]Share{s})
		require.ErrorContains(t, err, want)
	}
	_, err := DecodeShares([]byte{0, 0, 0, 1, 9, 0, 2, '/', 'a'})
	require.ErrorContains(t, err, "unknown mode 9")
}
