package harness

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATailKeepsTheBeginningAndTheEnd(t *testing.T) {
	var short tail
	short.Write([]byte("ab"))
	short.Write([]byte("cd"))
	require.Equal(t, "abcd", string(short.Bytes()))
	require.Empty(t, (*tail)(nil).Bytes())

	for _, size := range []int{1, 1000, 3*tailSize + 1} {
		var long tail
		all := []byte(strings.Repeat("0123456789", tailSize/2))
		for part := range slices.Chunk(all, size) {
			n, err := long.Write(part)
			require.NoError(t, err)
			require.Equal(t, len(part), n)
		}
		got := string(long.Bytes())
		require.True(t, strings.HasPrefix(got, string(all[:tailSize])))
		require.True(t, strings.HasSuffix(got, string(all[len(all)-tailSize:])))
		require.Contains(t, got, "\n… 98304 bytes left out …\n")
	}
}

func TestTheLastValueOfAVariableCounts(t *testing.T) {
	require.Nil(t, lastValues(nil))
	require.Equal(t, []string{}, lastValues([]string{}), "an empty environment is not init's")
	require.Equal(t, []string{"A=3", "B=2", "no key", "no key"}, lastValues([]string{"A=1", "B=2", "no key", "A=3", "no key"}))
	require.Equal(t, "3", lastValue([]string{"A=1", "A=3", "AB=4"}, "A"))
	require.Empty(t, lastValue(nil, "A"))
}

func TestACommandErrorHasItsCause(t *testing.T) {
	e := &CommandError{Args: []string{"a", "b"}, Exit: Exit{Status: 127, Why: "not there"}, refused: guestRefusal(uint16(syscall.ENOENT))}
	require.EqualError(t, e, `the guest failed: the command "a b" was not started: not there`)
	require.ErrorIs(t, e, ErrGuest)
	require.ErrorIs(t, e, fs.ErrNotExist)
	e.refused = errors.New("it is built for arm64")
	require.EqualError(t, e, `the command "a b" was not started: not there`)
	require.NotErrorIs(t, e, ErrGuest)
	e = &CommandError{Args: []string{strings.Repeat("x", 2000)}, Exit: Exit{Status: 3}, Stderr: []byte(strings.Repeat("y", 2000) + "\n")}
	require.ErrorIs(t, e, ErrGuest)
	require.Less(t, len(e.Error()), 2200, "an error is no place for all of it")
	for _, e := range []*CommandError{
		{Exit: Exit{Status: 1}, Stderr: []byte("a\x1b[2Jb\nc")},
		{Exit: Exit{Status: 126, Why: "a\x1b[2Jb\nc"}, refused: ErrGuest},
	} {
		require.Contains(t, e.Error(), "a\\x1b[2Jb\nc", "no byte of the guest acts on a terminal")
	}
}

// A writer that cannot be compared is not mistaken for the other one.
func TestTheSameWriterIsFound(t *testing.T) {
	var a, b bytes.Buffer
	require.True(t, sameWriter(&a, &a))
	require.False(t, sameWriter(&a, &b))
	f := writers{&a}
	require.False(t, sameWriter(f, f))
}

type writers []*bytes.Buffer

func (w writers) Write(p []byte) (int, error) { return len(p), nil }
