package harness

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Debian's kernels, which the integration tests cut short, have one kind of
// header each; these are the others.

func TestTheSizeOfACompressedARMKernelIsInItsHeader(t *testing.T) {
	image := make([]byte, 0x100)
	binary.LittleEndian.PutUint32(image[0x24:], zImageMagic)
	binary.LittleEndian.PutUint32(image[0x28:], 0x1000)
	binary.LittleEndian.PutUint32(image[0x2c:], 0x1000+0x100)
	require.EqualValues(t, len(image), kernelSize(bytes.NewReader(image)))

	file := filepath.Join(t.TempDir(), "zImage")
	require.NoError(t, os.WriteFile(file, image, 0o644))
	require.NoError(t, checkKernel(file))
	require.NoError(t, os.WriteFile(file, image[:0x80], 0o644))
	require.EqualError(t, checkKernel(file), "kernel "+file+": the file is cut short: its header promises 256 bytes and 128 are there; fetch or copy it again")
}

func TestTheSizeOfAnELFKernelIsInItsSegments(t *testing.T) {
	var image bytes.Buffer
	require.NoError(t, binary.Write(&image, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_AARCH64), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}))
	require.NoError(t, binary.Write(&image, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 4096, Filesz: 512}))
	require.EqualValues(t, 4096+512, kernelSize(bytes.NewReader(image.Bytes())))
}

func TestAFileOfNoKnownKindIsLeftToQEMU(t *testing.T) {
	require.Zero(t, kernelSize(bytes.NewReader(nil)))
	require.Zero(t, kernelSize(bytes.NewReader(make([]byte, 4096))))
	require.Zero(t, kernelSize(bytes.NewReader(append([]byte("MZ"), make([]byte, 4096)...))))
}
