package harness

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"os"
)

// checkKernel refuses a kernel file that is missing or cut short. QEMU itself
// starts such a file without a word and then nothing ever happens. Linux images
// have a PE header (they are EFI programs too) and others are ELF files; both
// say how long the file must be. What is neither is left to QEMU.
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

// kernelSize returns the size that a kernel's headers promise, or 0 where they
// promise none.
func kernelSize(r io.ReaderAt) (size int64) {
	magic := make([]byte, 4)
	if _, err := r.ReadAt(magic, 0); err != nil {
		return 0
	}
	switch {
	case bytes.HasPrefix(magic, []byte("MZ")):
		f, err := pe.NewFile(r)
		if err != nil {
			return 0
		}
		for _, s := range f.Sections {
			size = max(size, int64(s.Offset)+int64(s.Size))
		}
	case bytes.Equal(magic, []byte(elf.ELFMAG)):
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
