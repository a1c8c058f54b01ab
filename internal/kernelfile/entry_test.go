package kernelfile

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// QEMU would start these files without an error, or with one about Linux.
func TestAnELFFileThatQEMUCannotStartIsRefused(t *testing.T) {
	arm, err := target.Lookup("arm")
	require.NoError(t, err)
	x86, err := target.Lookup("x86")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		target target.Target
		kind   elf.Type
		entry  uint32
		code   []uint32
		notes  int // of code; they are words at its beginning
		want   string
	}{
		"arm":          {arm, elf.ET_EXEC, 0x40200000, []uint32{0}, 0, ""},
		"thumb":        {arm, elf.ET_EXEC, 0x40200005, []uint32{0, 0}, 0, ""},
		"object":       {arm, elf.ET_REL, 0x40200000, []uint32{0}, 0, "this ELF file is no executable (ET_REL)"},
		"no entry":     {arm, elf.ET_EXEC, 0, []uint32{0}, 0, "its entry point 0x0 is in none of its segments"},
		"behind":       {arm, elf.ET_EXEC, 0x40200004, []uint32{0}, 0, "its entry point 0x40200004 is in none of its segments"},
		"multiboot":    {x86, elf.ET_EXEC, 0x4020000c, []uint32{0x1badb002, 3, 1<<32 - 0x1badb002 - 3, 0}, 0, ""},
		"no multiboot": {x86, elf.ET_EXEC, 0x4020000c, []uint32{0x1badb002, 3, 0, 0}, 0, "QEMU starts an ELF file for x86 only with a Multiboot header in its first 8 KiB or a PVH entry point"},
		"pvh":          {x86, elf.ET_EXEC, 0, []uint32{4, 4, 18, binary.LittleEndian.Uint32([]byte("Xen\x00")), 0x40200014, 0}, 5, ""},
	} {
		header := elf.Header32{Type: uint16(c.kind), Machine: uint16(c.target.ELFMachines[0]), Version: 1, Entry: c.entry, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 2}
		copy(header.Ident[:], elf.ELFMAG+"\x01\x01\x01")
		size := uint32(4 * len(c.code))
		b, err := binary.Append(nil, binary.LittleEndian, header)
		require.NoError(t, err)
		b, err = binary.Append(b, binary.LittleEndian, []elf.Prog32{
			{Type: uint32(elf.PT_LOAD), Off: 116, Vaddr: 0x40200000, Paddr: 0x40200000, Filesz: size, Memsz: size},
			{Type: uint32(elf.PT_NOTE), Off: 116, Filesz: uint32(4 * c.notes)},
		})
		require.NoError(t, err)
		b, err = binary.Append(b, binary.LittleEndian, c.code)
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "kernel")
		require.NoError(t, os.WriteFile(file, b, 0o644))
		if err = Check(file, c.target); c.want == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, "kernel "+file+": "+c.want, name)
		}
	}
}
