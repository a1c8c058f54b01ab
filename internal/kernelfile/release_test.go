package kernelfile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReleaseOfAKernelFile(t *testing.T) {
	bzImage := make([]byte, 0x800)
	copy(bzImage[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(bzImage[0x20e:], 0x400)
	copy(bzImage[0x600:], "6.1.0-57-rt-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_RT\x00")

	// The banner lies across the border of two reads.
	image := make([]byte, overlap+2*scanned)
	copy(image[100:], "Linux version %s (%s)\x00")
	copy(image[overlap+scanned-20:], "Linux version 7.1.2 (gokrazy@docker) (gcc 15.1)\x00")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(image)
	require.NoError(t, err)
	require.NoError(t, z.Close())

	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"bzImage":      {bzImage, "6.1.0-57-rt-amd64"},
		"Image":        {image, "7.1.2"},
		"Image.gz":     {packed.Bytes(), "7.1.2"},
		"cut gzip":     {packed.Bytes()[:len(packed.Bytes())/2], ""},
		"another file": {bytes.Repeat([]byte("kernel "), 1000), ""},
		"empty":        {nil, ""},
		"cut bzImage":  {bzImage[:0x210], ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "kernel")
			require.NoError(t, os.WriteFile(file, c.content, 0o666))
			require.Equal(t, c.want, Release(file))
		})
	}
	require.Empty(t, Release(filepath.Join(t.TempDir(), "missing")))
}
