package qcow2

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSizeReadsTheHeaderOfAnEmptyImage(t *testing.T) {
	for _, size := range []int64{512, 1 << 20, 1<<29 + 512, 3 << 40, MaxSize} {
		image := Empty(size)
		got, err := Size(bytes.NewReader(image))
		require.NoError(t, err)
		require.Equal(t, size, got)
		require.Less(t, len(image), 1<<20, "an empty image is small")
		require.LessOrEqual(t, len(image)/clusterSize, clusterSize/2, "one block has all reference counts")
	}
}

func TestSizeRefusesImagesThatNameOtherFiles(t *testing.T) {
	change := func(at int, value byte) []byte {
		image := Empty(1 << 20)
		image[at] = value
		return image
	}
	for says, image := range map[string][]byte{
		"too short":                        []byte(Magic),
		"magic bytes":                      make([]byte, 1024),
		"version 9":                        change(7, 9),
		"a backing file: ":                 change(15, 104),
		"its data in another file":         change(79, 4),
		"a disk of 0 bytes":                Empty(0),
		"a disk of -9223372036854775808 b": change(24, 0x80)[:clusterSize],
	} {
		if says[:2] == "a " && image[24] == 0x80 {
			binary.BigEndian.PutUint64(image[24:], 1<<63)
		}
		_, err := Size(bytes.NewReader(image))
		require.ErrorContains(t, err, says)
	}
}
