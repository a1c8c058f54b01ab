package wire

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRequestsAboutFilesAreReadAsTheyWereWritten(t *testing.T) {
	for _, r := range []CopyRequest{
		{Channel: 7, Path: "/run/a\nb", Name: "x y", Exact: true, Expect: 1 << 20},
		{Path: "/"},
	} {
		b, err := r.Encode()
		require.NoError(t, err)
		got, err := DecodeCopyRequest(b)
		require.NoError(t, err)
		require.Equal(t, r, got)
	}
	for _, r := range []CopyRequest{{Path: "relative"}, {}, {Path: "/nul\x00"}, {Path: "/" + strings.Repeat("a", 4096)}, {Path: "/a", Name: "a/b"}} {
		_, err := r.Encode()
		require.Error(t, err, "%+v", r)
	}
	look := LookRequest{What: ReadFile, Path: "/proc/version", Offset: 1 << 40, Length: MaxRead, Inode: 1 << 63}
	b, err := look.Encode()
	require.NoError(t, err)
	got, err := DecodeLookRequest(b)
	require.NoError(t, err)
	require.Equal(t, look, got)
	for _, b := range [][]byte{nil, b[:lookHeader], append([]byte{99}, b[1:]...), append([]byte{ReadFile, 0x80}, b[2:]...)} {
		_, err := DecodeLookRequest(b)
		require.Error(t, err, "%q", b)
	}
	_, err = DecodeCopyRequest([]byte("\x00\x00\x00\x01\x02\x00\x00\x00\x00/a\x00"))
	require.Error(t, err)
}

func TestDescriptionsOfFilesAreReadAsTheyWereWritten(t *testing.T) {
	all := []FileInfo{
		{Base: "a\x00b", Bytes: 1 << 40, FMode: fs.ModeDir | fs.ModeSticky | 0o755, Changed: time.Unix(1, 2), Inode: 3},
		{Base: "", Changed: time.Unix(-1, 0)},
	}
	b := all[1].Append(all[0].Append(nil))
	got, err := DecodeFileInfos(b)
	require.NoError(t, err)
	require.Equal(t, all, got)
	for n := 1; n < len(b); n++ {
		if got, err := DecodeFileInfos(b[:n]); err == nil {
			require.Len(t, got, 1, "%d of %d bytes", n, len(b))
		}
	}
}

func TestAResultKeepsTheErrorNumber(t *testing.T) {
	r, err := DecodeResult(Result{Err: &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}}.Encode())
	require.NoError(t, err)
	require.ErrorIs(t, r.Err, fs.ErrNotExist)
	require.EqualError(t, r.Err, "open /x: no such file or directory")
	r, err = DecodeResult(Result{Err: errors.New("other")}.Encode())
	require.NoError(t, err)
	require.EqualError(t, r.Err, "other")
	require.NotErrorIs(t, r.Err, fs.ErrNotExist)
	r, err = DecodeResult(Result{Data: []byte("data")}.Encode())
	require.NoError(t, err)
	require.NoError(t, r.Err)
	require.Equal(t, "data", string(r.Data))
	_, err = DecodeResult([]byte("abc"))
	require.Error(t, err)
}
