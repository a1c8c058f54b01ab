package baremetal

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
)

// Semihosting returns an ELF file for the target arm or arm64. Its program prints a line and waits for a byte on the
// console. Then it opens a file of the host for writing, by ARM's semihosting, and exits with the byte as its status.
//
// Source: Semihosting for AArch32 and AArch64, 2.0, SYS_OPEN, SYS_EXIT and SYS_EXIT_EXTENDED.
func Semihosting(targetName, line, file string) ([]byte, error) {
	const base = 0x40200000
	const forWriting, applicationExit = 4, 0x20026 // a mode of SYS_OPEN, and a reason of SYS_EXIT
	text := []byte(line + "\r\n\x00" + file + "\x00")
	name := len(text) - len(file) - 1 // where the file's name begins
	switch targetName {
	case "arm":
		code := words(semihostingARM)
		const blocks = 5 * 4
		at := uint32(base + len(code) + blocks + name)
		code = append(code, words([]uint32{at, forWriting, uint32(len(file)), applicationExit, 0})...)
		return elf32(elf.EM_ARM, base, 0, append(code, text...), 0), nil
	case "arm64":
		code := words(semihostingARM64)
		const blocks = 5 * 8
		at := uint64(base + len(code) + blocks + name)
		for _, w := range []uint64{at, forWriting, uint64(len(file)), applicationExit, 0} {
			code = binary.LittleEndian.AppendUint64(code, w)
		}
		return elf64(elf.EM_AARCH64, base, append(code, text...), 0), nil
	}
	return nil, fmt.Errorf("there is no bare-metal guest with semihosting for %s", targetName)
}

// semihostingARM is codeARM up to the end of the text. Behind it are the parameters of SYS_OPEN, the parameters of
// SYS_EXIT_EXTENDED, and the text.
var semihostingARM = slices.Concat([]uint32{
	0xe3a00409, //       mov r0, #0x09000000
	0xe3a03c03, //       mov r3, #0x300
	0xe3833001, //       orr r3, r3, #1
	0xe5803030, //       str r3, [r0, #0x30]
	0xe28f1064, //       adr r1, text
}, codeARM[5:13], []uint32{
	0xe5903018, // wait: ldr r3, [r0, #0x18]
	0xe3130010, //       tst r3, #0x10
	0x1afffffc, //       bne wait
	0xe5d02000, //       ldrb r2, [r0]
	0xe28f101c, //       adr r1, open
	0xe3a00001, //       mov r0, #0x01
	0xef123456, //       svc #0x123456
	0xe28f101c, //       adr r1, exit
	0xe5812004, //       str r2, [r1, #4]
	0xe3a00020, //       mov r0, #0x20
	0xef123456, //       svc #0x123456
	0xe320f003, // idle: wfi
	0xeafffffd, //       b idle
})

// semihostingARM64 is semihostingARM for a 64-bit processor, on which SYS_EXIT has parameters too.
var semihostingARM64 = slices.Concat([]uint32{
	0xd2a12000, //       movz x0, #0x900, lsl #16
	0x52806023, //       movz w3, #0x301
	0xb9003003, //       str w3, [x0, #0x30]
	0x100003a1, //       adr x1, text
}, codeARM64[4:10], []uint32{
	0xb9401803, // wait: ldr w3, [x0, #0x18]
	0x3727ffe3, //       tbnz w3, #4, wait
	0x39400002, //       ldrb w2, [x0]
	0x10000121, //       adr x1, open
	0x52800020, //       movz w0, #0x01
	0xd45e0000, //       hlt #0xf000
	0x10000181, //       adr x1, exit
	0xf9000422, //       str x2, [x1, #8]
	0x52800300, //       movz w0, #0x18
	0xd45e0000, //       hlt #0xf000
	0xd503207f, // idle: wfi
	0x17ffffff, //       b idle
})
