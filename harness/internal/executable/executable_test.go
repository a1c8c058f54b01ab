package executable

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// write writes a file and returns its path.
func write(t *testing.T, name string, content []byte, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, content, mode))
	return file
}

// elf64 returns the smallest ELF file of a machine. If interpreter is not empty, the file names it.
func elf64(t *testing.T, machine elf.Machine, kind elf.Type, interpreter string) []byte {
	t.Helper()
	const headerSize, progSize = 64, 56
	h := elf.Header64{Type: uint16(kind), Machine: uint16(machine), Version: 1, Entry: 0x1000,
		Ehsize: headerSize, Phoff: headerSize, Phentsize: progSize}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if kind == elf.ET_REL {
		h.Entry = 0
	}
	if interpreter != "" {
		h.Phnum = 1
	}
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, h))
	if interpreter != "" {
		require.NoError(t, binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP),
			Off: headerSize + progSize, Filesz: uint64(len(interpreter) + 1)}))
		b.WriteString(interpreter + "\x00")
	}
	return b.Bytes()
}

func TestOnlyAStaticExecutableForTheTargetIsAccepted(t *testing.T) {
	arm64, err := target.Lookup("arm64")
	require.NoError(t, err)
	static := elf64(t, elf.EM_AARCH64, elf.ET_EXEC, "")
	f, err := CheckStatic(write(t, "program", static, 0o755), arm64)
	require.NoError(t, err)
	require.EqualValues(t, len(static), f.Size)

	dir := t.TempDir()
	for says, file := range map[string]string{
		"no such file or directory":                        filepath.Join(dir, "missing"),
		"not a regular file":                               dir,
		"it is not executable (its mode is 0644)":          write(t, "data", static, 0o644),
		"it is not an ELF executable":                      write(t, "script", []byte("#!/bin/sh\n"), 0o755),
		"it is a damaged ELF file: ":                       write(t, "short", static[:20], 0o755),
		"it is built for x86_64; the target is arm64":      write(t, "amd64", elf64(t, elf.EM_X86_64, elf.ET_EXEC, ""), 0o755),
		"it is built for EM_RISCV; the target is arm64":    write(t, "riscv", elf64(t, elf.EM_RISCV, elf.ET_EXEC, ""), 0o755),
		"it is an object file or a library":                write(t, "object", elf64(t, elf.EM_AARCH64, elf.ET_REL, ""), 0o755),
		"needs the interpreter /lib/ld-linux-aarch64.so.1": write(t, "dynamic", elf64(t, elf.EM_AARCH64, elf.ET_DYN, "/lib/ld-linux-aarch64.so.1"), 0o755),
	} {
		_, err := CheckStatic(file, arm64)
		require.ErrorContains(t, err, "program "+file+": ")
		require.ErrorContains(t, err, says)
	}

	dynamic := write(t, "dynamic", elf64(t, elf.EM_AARCH64, elf.ET_DYN, "/lib/ld.so"), 0o755)
	f, err = Check(dynamic, arm64)
	require.NoError(t, err)
	require.Equal(t, "/lib/ld.so", f.Interpreter)
}

func TestAProgramsHeaderNamesItsTarget(t *testing.T) {
	for name, machine := range map[string]elf.Machine{"x86_64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		got, err := Target(write(t, "program", elf64(t, machine, elf.ET_EXEC, ""), 0o755))
		require.NoError(t, err)
		require.Equal(t, name, got.Name)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	got, err := Target(self)
	require.NoError(t, err)
	require.Equal(t, runtime.GOARCH, got.GOARCH)

	file := write(t, "riscv", elf64(t, elf.EM_RISCV, elf.ET_EXEC, ""), 0o755)
	_, err = Target(file)
	require.EqualError(t, err, "program "+file+": it is built for EM_RISCV; the targets are x86, x86_64, arm, arm64")
	_, err = Target(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
