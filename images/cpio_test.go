package images

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testdata/uroot.cpio was written by github.com/u-root/mkuimage/cpio from the same files.
func TestAnArchiveIsTheSameAsURoots(t *testing.T) {
	want, err := os.ReadFile("testdata/uroot.cpio")
	require.NoError(t, err)
	got, err := archive([]record{
		directory("tmp", 0o777),
		characterDevice("dev/console", 0o600, 5, 1),
		regularFile("bin/tool", []byte("#!tool\n"), 0o755),
		symlink("bin/sh", "tool"),
		textFile("empty", ""),
	})
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// readArchive returns the records of an archive in their order. It fails the test unless all fields
// that a record leaves out are zero.
func readArchive(t *testing.T, data []byte) (records []record) {
	t.Helper()
	at := 0
	next := func(n int) []byte {
		require.LessOrEqual(t, at+n, len(data))
		at += n
		return data[at-n : at]
	}
	for {
		require.Equal(t, "070701", string(next(6)))
		var fields [13]uint32
		for i := range fields {
			n, err := strconv.ParseUint(string(next(8)), 16, 32)
			require.NoError(t, err)
			fields[i] = uint32(n)
		}
		r := record{mode: fields[1], major: fields[9], minor: fields[10]}
		name := string(next(int(fields[11])))
		require.Equal(t, byte(0), name[len(name)-1])
		r.name = name[:len(name)-1]
		next(-at & 3)
		r.data = next(int(fields[6]))
		next(-at & 3)
		for _, i := range []int{0, 2, 3, 4, 5, 7, 8, 12} {
			require.Zero(t, fields[i], "%s: no times, owners, inodes", r.name)
		}
		if r.name == "TRAILER!!!" {
			require.Equal(t, len(data), at)
			return records
		}
		require.NotZero(t, r.mode&unix.S_IFMT, r.name)
		records = append(records, r)
	}
}
