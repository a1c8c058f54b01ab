// Package baremetal makes the smallest guests for tests: ELF programs that run on the
// targets' machines without an operating system.
package baremetal

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"guesthouse.example/internal/target"
)

// ELF returns an ELF file for the target's machine. Its program prints a line on the
// console and then idles for ever.
func ELF(targetName, line string) ([]byte, error) { return build(targetName, line, false) }

// Spinning returns an ELF file whose program prints a line and then spins for ever, in a function with the name
// SpinsIn.
func Spinning(targetName, line string) ([]byte, error) { return build(targetName, line, true) }

// SpinsIn is the symbol of the code that spins.
const SpinsIn = "spins"

func build(targetName, line string, spins bool) ([]byte, error) {
	row, err := target.Lookup(targetName)
	if err != nil {
		return nil, err
	}
	text := []byte(line + "\r\n\x00")
	switch machine := row.ELFMachines[len(row.ELFMachines)-1]; machine {
	case elf.EM_386:
		const base, header = 0x100000, 12
		code := codeX86(base + header)
		idle := len(code) - 3 // hlt, jmp
		if spins {
			code[idle], code[len(code)-1] = 0x90, 0xfe // nop, jmp to itself
		}
		return elf32(machine, base, header, multiboot(append(code, text...)), uint32(header+idle)), nil
	case elf.EM_ARM:
		code := slices.Clone(codeARM)
		idle := len(code) - 2
		if spins {
			code[idle], code[idle+1] = 0xe1a00000, 0xeafffffe // nop, b to itself
		}
		return elf32(machine, 0x40200000, 0, append(words(code), text...), uint32(4*idle)), nil
	case elf.EM_AARCH64:
		code := slices.Clone(codeARM64)
		idle := len(code) - 2
		if spins {
			code[idle], code[idle+1] = 0xd503201f, 0x14000000 // nop, b to itself
		}
		return elf64(machine, 0x40200000, append(words(code), text...), uint64(4*idle)), nil
	default:
		return nil, fmt.Errorf("there is no bare-metal guest for %s", machine)
	}
}

// Prints returns an ELF file for the target x86 whose program prints the text at an address, up to a zero byte,
// on the console, and then idles for ever.
func Prints(text uint32) []byte {
	code := codeX86(0)
	binary.LittleEndian.PutUint32(code[textX86:], text)
	return elf32(elf.EM_386, 0x100000, 12, multiboot(code), uint32(12+len(code)-3))
}

// multiboot returns the code behind a Multiboot header, without which QEMU does not load a
// 32-bit ELF file on a PC. Source: the Multiboot Specification, version 0.6.96, 3.1.
func multiboot(code []byte) []byte {
	const magic = 0x1badb002
	return append(words([]uint32{magic, 0, -magic & 0xffffffff}), code...)
}

// textX86 is where the code for x86 has the address of the text.
const textX86 = 2

// codeX86 returns code that is loaded at base and prints the text behind itself on COM1.
func codeX86(base uint32) []byte {
	code := []byte{
		0xfc,             //       cld
		0xbe, 0, 0, 0, 0, //       mov esi, text
		0xac,       //       next: lodsb
		0x84, 0xc0, //             test al, al
		0x74, 0x14, //             jz idle
		0x88, 0xc4, //             mov ah, al
		0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       //       full: in al, dx
		0xa8, 0x20, //             test al, 0x20
		0x74, 0xfb, //             jz full
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0x88, 0xe0, //             mov al, ah
		0xee,       //             out dx, al
		0xeb, 0xe7, //             jmp next
		0xf4,       //       idle: hlt
		0xeb, 0xfd, //             jmp idle
	}
	binary.LittleEndian.PutUint32(code[textX86:], base+uint32(len(code)))
	return code
}

// codeARM prints the text behind itself on the PL011 of the virt machine.
var codeARM = []uint32{
	0xe3a00409, //       mov r0, #0x09000000
	0xe3a03c03, //       mov r3, #0x300
	0xe3833001, //       orr r3, r3, #1
	0xe5803030, //       str r3, [r0, #0x30]
	0xe28f1024, //       adr r1, text
	0xe4d12001, // next: ldrb r2, [r1], #1
	0xe3520000, //       cmp r2, #0
	0x0a000004, //       beq idle
	0xe5903018, // full: ldr r3, [r0, #0x18]
	0xe3130020, //       tst r3, #0x20
	0x1afffffc, //       bne full
	0xe5802000, //       str r2, [r0]
	0xeafffff7, //       b next
	0xe320f003, // idle: wfi
	0xeafffffd, //       b idle
}

// codeARM64 is codeARM for a 64-bit processor.
var codeARM64 = []uint32{
	0xd2a12000, //       movz x0, #0x900, lsl #16
	0x52806023, //       movz w3, #0x301
	0xb9003003, //       str w3, [x0, #0x30]
	0x10000121, //       adr x1, text
	0x38401422, // next: ldrb w2, [x1], #1
	0x340000a2, //       cbz w2, idle
	0xb9401803, // full: ldr w3, [x0, #0x18]
	0x372fffe3, //       tbnz w3, #5, full
	0x39000002, //       strb w2, [x0]
	0x17fffffb, //       b next
	0xd503207f, // idle: wfi
	0x17ffffff, //       b idle
}

// words returns the bytes of little-endian words.
func words(list []uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func ident(class elf.Class) [elf.EI_NIDENT]byte {
	return [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
}

// The string tables of the files: names of sections, and the name of the only symbol.
const (
	sectionNames = "\x00.text\x00.symtab\x00.strtab\x00.shstrtab\x00"
	symbolNames  = "\x00" + SpinsIn + "\x00"
)

// nameOf returns the offset of a section's name.
func nameOf(section string) uint32 {
	return uint32(strings.Index(sectionNames, "\x00"+section+"\x00") + 1)
}

// elf32 returns a file with one segment, which is loaded at base and starts at an
// offset into the segment. The symbol SpinsIn begins at another offset.
func elf32(machine elf.Machine, base, start uint32, segment []byte, spins uint32) []byte {
	const headers = 52 + 32 // bytes
	size := uint32(len(segment))
	names := headers + size + 2*16
	tables := slices.Concat(
		make([]byte, 16), bytesOf(elf.Sym32{Name: 1, Value: base + spins, Size: size - spins, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1}),
		[]byte(symbolNames+sectionNames),
		make([]byte, 40),
		bytesOf(elf.Section32{Name: nameOf(".text"), Type: uint32(elf.SHT_PROGBITS), Flags: uint32(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: base, Off: headers, Size: size}),
		bytesOf(elf.Section32{Name: nameOf(".symtab"), Type: uint32(elf.SHT_SYMTAB), Off: headers + size, Size: 2 * 16, Link: 3, Info: 1, Entsize: 16}),
		bytesOf(elf.Section32{Name: nameOf(".strtab"), Type: uint32(elf.SHT_STRTAB), Off: names, Size: uint32(len(symbolNames))}),
		bytesOf(elf.Section32{Name: nameOf(".shstrtab"), Type: uint32(elf.SHT_STRTAB), Off: names + uint32(len(symbolNames)), Size: uint32(len(sectionNames))}),
	)
	return slices.Concat(bytesOf(elf.Header32{
		Ident: ident(elf.ELFCLASS32), Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + start, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
		Shoff: names + uint32(len(symbolNames)+len(sectionNames)), Shentsize: 40, Shnum: 5, Shstrndx: 4,
	}), bytesOf(elf.Prog32{
		Type: uint32(elf.PT_LOAD), Off: headers, Vaddr: base, Paddr: base,
		Filesz: size, Memsz: size, Flags: uint32(elf.PF_R | elf.PF_X), Align: 4,
	}), segment, tables)
}

// elf64 returns a file with one segment, which is loaded at base and starts there.
func elf64(machine elf.Machine, base uint64, segment []byte, spins uint64) []byte {
	const headers = 64 + 56 // bytes
	size := uint64(len(segment))
	names := headers + size + 2*24
	tables := slices.Concat(
		make([]byte, 24), bytesOf(elf.Sym64{Name: 1, Value: base + spins, Size: size - spins, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1}),
		[]byte(symbolNames+sectionNames),
		make([]byte, 64),
		bytesOf(elf.Section64{Name: nameOf(".text"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: base, Off: headers, Size: size}),
		bytesOf(elf.Section64{Name: nameOf(".symtab"), Type: uint32(elf.SHT_SYMTAB), Off: headers + size, Size: 2 * 24, Link: 3, Info: 1, Entsize: 24}),
		bytesOf(elf.Section64{Name: nameOf(".strtab"), Type: uint32(elf.SHT_STRTAB), Off: names, Size: uint64(len(symbolNames))}),
		bytesOf(elf.Section64{Name: nameOf(".shstrtab"), Type: uint32(elf.SHT_STRTAB), Off: names + uint64(len(symbolNames)), Size: uint64(len(sectionNames))}),
	)
	return slices.Concat(bytesOf(elf.Header64{
		Ident: ident(elf.ELFCLASS64), Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		Shoff: names + uint64(len(symbolNames)+len(sectionNames)), Shentsize: 64, Shnum: 5, Shstrndx: 4,
	}), bytesOf(elf.Prog64{
		Type: uint32(elf.PT_LOAD), Off: headers, Vaddr: base, Paddr: base,
		Filesz: size, Memsz: size, Flags: uint32(elf.PF_R | elf.PF_X), Align: 4,
	}), segment, tables)
}

// bytesOf returns the bytes of a header.
func bytesOf(header any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, header)
	if err != nil {
		panic(err) // the type of header has no fixed size
	}
	return b
}
