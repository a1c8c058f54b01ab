// Package kernelfile reads the headers of kernel files: which target a kernel is for, whether the file is
// complete, and which release of Linux it holds.
//
// It knows the formats that QEMU boots: bzImage, Image and zImage of Linux, and ELF files. It does not
// unpack a kernel that was compressed by its own boot code.
package kernelfile

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// Check refuses a kernel file that is missing, truncated or built for another target, and an ELF file that QEMU
// cannot start. QEMU starts most such files without an error, and the console then stays empty.
//
// Linux images have a PE header, because they are EFI programs too; ARM's may have a header of their
// own instead, and other kernels are ELF files. Each of these headers names the machine, and most
// give the size of the file. Check accepts a file in any other format.
func Check(file string, t target.Target) error {
	if file == "" {
		return errors.New("kernel: none given")
	}
	if err := regular.Check("kernel", file); err != nil {
		return err
	}
	f, err := regular.Open(file)
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
	if other := otherMachine(f, t); other != "" {
		return fmt.Errorf("kernel %s: this is %s; the target is %s", file, other, t.Name)
	}
	if why := whyNotStarted(f); why != "" {
		return fmt.Errorf("kernel %s: %s", file, why)
	}
	return nil
}

// hasPVH reports whether an ELF file has the note of a PVH entry point.
func hasPVH(f *elf.File) bool {
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool {
		return p.Type == elf.PT_NOTE && hasPVHEntry(p.Open(), f.ByteOrder)
	})
}

// hasPVHEntry reports whether a segment of notes has the one of a PVH entry point: Xen's, of the type
// XEN_ELFNOTE_PHYS32_ENTRY. It reads at most 64 KiB.
func hasPVHEntry(notes io.Reader, order binary.ByteOrder) bool {
	const phys32Entry, mostRead = 18, 64 << 10
	b, err := io.ReadAll(io.LimitReader(notes, mostRead))
	if err != nil {
		return false
	}
	aligned := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(b) >= 12 {
		nameSize, descSize, kind := order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:])
		name, size := b[12:], aligned(nameSize)+aligned(descSize)
		if size > uint64(len(name)) {
			return false
		}
		if kind == phys32Entry && string(name[:nameSize]) == "Xen\x00" {
			return true
		}
		b = name[size:]
	}
	return false
}

// otherMachine describes a kernel that does not run on the target. It returns "" for a kernel that runs
// there, and for one whose header names no machine.
func otherMachine(r io.ReaderAt, t target.Target) string {
	head := make([]byte, 0x40)
	if _, err := r.ReadAt(head, 0); err != nil {
		return ""
	}
	var machine string
	var runs func(target.Target) bool
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		f, err := elf.NewFile(r)
		if err != nil {
			return ""
		}
		machine = f.Machine.String()
		if slices.Contains(t.ELFMachines, f.Machine) {
			return ""
		}
		runs = func(t target.Target) bool { return t.ELFMachines[0] == f.Machine }
	} else {
		var m uint16
		var start [6]byte // of the PE header; package pe does not know every machine
		at := int64(binary.LittleEndian.Uint32(head[0x3c:]))
		_, err := r.ReadAt(start[:], at)
		switch {
		case bytes.HasPrefix(head, []byte("MZ")) && err == nil && string(start[:4]) == "PE\x00\x00":
			m = binary.LittleEndian.Uint16(start[4:])
		case binary.LittleEndian.Uint32(head[0x24:]) == zImageMagic:
			m = pe.IMAGE_FILE_MACHINE_THUMB
		case binary.LittleEndian.Uint32(head[0x38:]) == arm64Magic:
			m = pe.IMAGE_FILE_MACHINE_ARM64
		default:
			return ""
		}
		machine = fmt.Sprintf("PE machine %#x", m)
		runs = func(t target.Target) bool { return t.PEMachine == m }
		if runs(t) {
			return ""
		}
	}
	for _, other := range target.All() {
		if runs(other) {
			return "an " + other.Name + " kernel"
		}
	}
	return "a kernel for " + machine
}

// zImageMagic marks a compressed kernel for 32-bit ARM. Its start and end addresses follow. Source: arch/arm/boot/compressed/head.S of Linux.
const zImageMagic = 0x016f2818

// arm64Magic is "ARMd" in the header of an uncompressed kernel for 64-bit ARM.
// Source: Documentation/arch/arm64/booting.rst of Linux.
const arm64Magic = 0x644d5241

// kernelSize returns the size that a kernel's headers give for the file, or 0 if they give none.
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

// errCutShort is wrapped by the error for a truncated kernel file.
var errCutShort = errors.New("the file is cut short")
