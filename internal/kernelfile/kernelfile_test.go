package kernelfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// The integration tests truncate Debian's kernels, which have one kind of header for each target. The
// tests below are for the other kinds.

func TestTheSizeOfACompressedARMKernelIsInItsHeader(t *testing.T) {
	image := make([]byte, 0x100)
	binary.LittleEndian.PutUint32(image[0x24:], zImageMagic)
	binary.LittleEndian.PutUint32(image[0x28:], 0x1000)
	binary.LittleEndian.PutUint32(image[0x2c:], 0x1000+0x100)
	require.EqualValues(t, len(image), kernelSize(bytes.NewReader(image)))

	file := filepath.Join(t.TempDir(), "zImage")
	require.NoError(t, os.WriteFile(file, image, 0o644))
	arm, err := target.Lookup("arm")
	require.NoError(t, err)
	require.NoError(t, Check(file, arm))
	x86, err := target.Lookup("x86")
	require.NoError(t, err)
	require.EqualError(t, Check(file, x86), "kernel "+file+": this is an arm kernel; the target is x86")
	require.NoError(t, os.WriteFile(file, image[:0x80], 0o644))
	require.EqualError(t, Check(file, arm), "kernel "+file+": the file is cut short: its header promises 256 bytes and 128 are there; fetch or copy it again")
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

func TestAKernelOfAnotherTargetIsRefusedByName(t *testing.T) {
	withELF := func(class elf.Class, machine elf.Machine) []byte {
		var image bytes.Buffer
		ident := [16]byte{0x7f, 'E', 'L', 'F', byte(class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
		header := any(elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT)})
		if class == elf.ELFCLASS32 {
			header = elf.Header32{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT)}
		}
		require.NoError(t, binary.Write(&image, binary.LittleEndian, header))
		return append(image.Bytes(), make([]byte, 64)...)
	}
	withPE := func(machine uint16) []byte {
		image := make([]byte, 0x100)
		copy(image, "MZ")
		binary.LittleEndian.PutUint32(image[0x3c:], 0x40)
		copy(image[0x40:], "PE\x00\x00")
		binary.LittleEndian.PutUint16(image[0x44:], machine)
		return image
	}
	arm64Image := make([]byte, 0x100)
	copy(arm64Image[0x38:], "ARMd")
	for _, c := range []struct {
		image []byte
		runs  string // the targets
		what  string // for all others
	}{
		{withPE(0x14c), "x86", "an x86 kernel"},
		{withPE(0x8664), "x86_64", "an x86_64 kernel"},
		{withPE(0x1c2), "arm", "an arm kernel"},
		{withPE(0xaa64), "arm64", "an arm64 kernel"},
		{withPE(0x5064), "", "a kernel for PE machine 0x5064"},
		{arm64Image, "arm64", "an arm64 kernel"},
		{withELF(elf.ELFCLASS32, elf.EM_386), "x86 x86_64", "an x86 kernel"},
		{withELF(elf.ELFCLASS64, elf.EM_X86_64), "x86_64", "an x86_64 kernel"},
		{withELF(elf.ELFCLASS32, elf.EM_ARM), "arm", "an arm kernel"},
		{withELF(elf.ELFCLASS64, elf.EM_AARCH64), "arm64", "an arm64 kernel"},
		{withELF(elf.ELFCLASS64, elf.EM_RISCV), "", "a kernel for EM_RISCV"},
		{make([]byte, 0x100), "x86 x86_64 arm arm64", ""},
	} {
		for _, tg := range target.All() {
			want := c.what
			if slices.Contains(strings.Fields(c.runs), tg.Name) {
				want = ""
			}
			require.Equal(t, want, otherMachine(bytes.NewReader(c.image), tg), "%s on %s", c.what, tg.Name)
		}
	}
}

func TestAFileInAnUnknownFormatIsAccepted(t *testing.T) {
	require.Zero(t, kernelSize(bytes.NewReader(nil)))
	require.Zero(t, kernelSize(bytes.NewReader(make([]byte, 4096))))
	require.Zero(t, kernelSize(bytes.NewReader(append([]byte("MZ"), make([]byte, 4096)...))))
}

// QEMU refuses a 64-bit ELF file for x86_64 that has no PVH entry point.
func TestA64BitELFFileNeedsAPVHEntry(t *testing.T) {
	x86_64, err := target.Lookup("x86_64")
	require.NoError(t, err)
	write := func(name string, kind uint32) string {
		note := slices.Concat([]byte{4, 0, 0, 0, 4, 0, 0, 0, byte(kind), 0, 0, 0}, []byte("Xen\x00"), []byte{0, 0, 16, 0})
		header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
		copy(header.Ident[:], elf.ELFMAG)
		header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
		b, err := binary.Append(nil, binary.LittleEndian, header)
		require.NoError(t, err)
		b, err = binary.Append(b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(note)), Memsz: uint64(len(note)), Align: 4})
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(file, append(b, note...), 0o644))
		return file
	}
	require.NoError(t, Check(write("pvh", 18), x86_64))
	err = Check(write("other", 17), x86_64)
	require.ErrorContains(t, err, "only at a PVH entry point, and this one has none: give a 32-bit file")
}
