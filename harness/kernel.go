package harness

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// checkKernel refuses a kernel file that is missing or cut short. QEMU itself
// starts such a file without a word and then nothing ever happens. Linux images
// have a PE header (they are EFI programs too), for 32-bit ARM perhaps only a
// header of their own, and others are ELF files; all say how long the file must
// be. What is none of these is left to QEMU.
func checkKernel(file string) error {
	if file == "" {
		return errors.New("kernel: none given")
	}
	if err := checkFile("kernel", file); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if need := kernelSize(f); need > info.Size() {
		return fmt.Errorf("kernel %s: %w: its header promises %d bytes and %d are there; fetch or copy it again",
			file, errCutShort, need, info.Size())
	}
	return nil
}

// zImageMagic marks a compressed kernel for 32-bit ARM; where it begins and ends
// stands behind it. Source: arch/arm/boot/compressed/head.S of Linux.
const zImageMagic = 0x016f2818

// kernelSize returns the size that a kernel's headers promise, or 0 where they
// promise none.
func kernelSize(r io.ReaderAt) (size int64) {
	head := make([]byte, 0x30)
	if _, err := r.ReadAt(head, 0); err != nil {
		return 0
	}
	switch {
	case binary.LittleEndian.Uint32(head[0x24:]) == zImageMagic:
		start, end := binary.LittleEndian.Uint32(head[0x28:]), binary.LittleEndian.Uint32(head[0x2c:])
		size = int64(end) - int64(start)
	case bytes.HasPrefix(head, []byte("MZ")):
		f, err := pe.NewFile(r)
		if err != nil {
			return 0
		}
		for _, s := range f.Sections {
			size = max(size, int64(s.Offset)+int64(s.Size))
		}
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		f, err := elf.NewFile(r)
		if err != nil {
			return 0
		}
		for _, p := range f.Progs {
			size = max(size, int64(p.Off+p.Filesz))
		}
	}
	return size
}

func checkFile(what, file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %s: not a regular file", what, file)
	case info.Size() == 0:
		return fmt.Errorf("%s %s: the file is empty", what, file)
	}
	return nil
}

// errCutShort is wrapped by the error for a kernel file that ends too early.
var errCutShort = errors.New("the file is cut short")
