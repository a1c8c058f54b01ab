package symbols

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const program = `package main

//go:noinline
func spins(n int) int {
	for {
		n++
		if n == 0 {
			return n
		}
	}
}

func main() {
	println(spins(1))
}
`

// built compiles the program, with further flags for the linker.
func built(t *testing.T, ldflags string) string {
	dir := t.TempDir()
	source, file := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, []byte(program), 0o644))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", ldflags, "-o", file, source)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

// symbol returns the address and the size of a function.
func symbol(t *testing.T, file, name string) (address, size uint64) {
	f, err := elf.Open(file)
	require.NoError(t, err)
	defer f.Close()
	all, err := f.Symbols()
	require.NoError(t, err)
	for _, s := range all {
		if s.Name == name {
			return s.Value, s.Size
		}
	}
	require.Fail(t, "no symbol "+name)
	return 0, 0
}

// expanding returns a copy of a 64-bit ELF file whose section .debug_frame is compressed, and has size zeros.
func expanding(t *testing.T, file string, size int) string {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	f, err := elf.NewFile(bytes.NewReader(content))
	require.NoError(t, err)
	shoff := binary.LittleEndian.Uint64(content[40:])
	at := slices.IndexFunc(f.Sections, func(s *elf.Section) bool { return s.Name == ".debug_frame" })
	require.Positive(t, at)

	var section bytes.Buffer
	require.NoError(t, binary.Write(&section, binary.LittleEndian, elf.Chdr64{Type: uint32(elf.COMPRESS_ZLIB), Size: uint64(size), Addralign: 1}))
	z := zlib.NewWriter(&section)
	_, err = z.Write(make([]byte, size))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	header := content[shoff+uint64(at)*64:]
	binary.LittleEndian.PutUint64(header[8:], uint64(elf.SHF_COMPRESSED))
	binary.LittleEndian.PutUint64(header[24:], uint64(len(content)))
	binary.LittleEndian.PutUint64(header[32:], uint64(section.Len()))
	changed := filepath.Join(t.TempDir(), "expanding")
	require.NoError(t, os.WriteFile(changed, append(content, section.Bytes()...), 0o644))
	return changed
}

func TestFind(t *testing.T) {
	file := built(t, "")
	address, size := symbol(t, file, "main.spins")
	t.Run("function, file and line", func(t *testing.T) {
		table := Open(file)
		for at := address; at < address+size; at += 4 {
			if found := table.Find(at); found != "" { // padding has no line
				require.Regexp(t, `^main\.spins( \(\S*main\.go:([4-9]|10)\))?$`, found)
			}
		}
		require.Regexp(t, `main\.go:[45]\)$`, table.Find(address))
		require.True(t, table.Begins(address))
		require.False(t, table.Begins(address+1))
		data, _ := symbol(t, file, "runtime.buildVersion")
		for _, nowhere := range []uint64{0, 0x10, data, 1 << 50, ^uint64(0)} {
			require.Empty(t, table.Find(nowhere))
		}
	})
	t.Run("the symbols of several files", func(t *testing.T) {
		require.NotEmpty(t, Open("/nonexistent", file).Find(address))
	})
	t.Run("a file without DWARF has its functions", func(t *testing.T) {
		file := built(t, "-w")
		address, _ := symbol(t, file, "main.spins")
		require.Equal(t, "main.spins", Open(file).Find(address))
	})
	t.Run("a file whose sections expand to more than a bound has none", func(t *testing.T) {
		require.Empty(t, Open(expanding(t, file, maxExpanded+1)).Find(address))
		require.Contains(t, Open(expanding(t, file, 1<<20)).Find(address), "main.spins (")
	})
	t.Run("a file without symbols has none", func(t *testing.T) {
		text := filepath.Join(t.TempDir(), "text")
		require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("no ELF file\n", 100)), 0o644))
		for _, file := range []string{built(t, "-s -w"), text, "/nonexistent"} {
			require.Empty(t, Open(file).Find(address), file)
		}
	})
}
