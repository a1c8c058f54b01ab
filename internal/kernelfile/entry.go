package kernelfile

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// whyNotStarted returns why QEMU could not start an ELF file, or "" if nothing speaks against it. QEMU does not say why:
// it takes a file for x86 without a boot header for a Linux kernel, and starts another where there is no code. Source:
// x86_load_linux and load_multiboot of QEMU.
func whyNotStarted(r io.ReaderAt) string {
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Sprintf("this ELF file is no executable (%v): give the file that the linker makes", f.Type)
	}
	switch {
	case f.Machine != elf.EM_X86_64 && f.Machine != elf.EM_386, f.Class == elf.ELFCLASS32 && hasMultiboot(r):
		// QEMU starts it at its entry point.
	case hasPVH(f):
		return "" // QEMU starts it at the address in the note
	case f.Class == elf.ELFCLASS64:
		return "QEMU starts a 64-bit ELF file for x86_64 only at a PVH entry point, and this one has none: give a 32-bit file; for its board qemu_x86_64, Zephyr makes one beside zephyr.elf with west build -t qemu_kernel_target: zephyr-qemu-locore.elf"
	default:
		return "QEMU starts an ELF file for x86 only with a Multiboot header in its first 8 KiB or a PVH entry point, and this one has neither"
	}
	entry := f.Entry &^ 1 // an odd address starts Thumb code on ARM
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && (entry-p.Vaddr < p.Filesz || entry-p.Paddr < p.Filesz) {
			return ""
		}
	}
	return fmt.Sprintf("its entry point %#x is in none of its segments, so the processor would find no code there: name the entry point to the linker", f.Entry)
}

// hasMultiboot reports whether a file has a Multiboot header where QEMU looks for one. Source: the Multiboot
// Specification, version 0.6.96, 3.1.
func hasMultiboot(r io.ReaderAt) bool {
	const searched, magic = 8192, 0x1badb002
	head := make([]byte, searched)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return false
	}
	for head = head[:n]; len(head) >= 12; head = head[4:] {
		flags, sum := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
		if binary.LittleEndian.Uint32(head) == magic && magic+flags+sum == 0 {
			return true
		}
	}
	return false
}
