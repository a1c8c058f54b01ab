package qemu

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A RAM is a place of a machine's memory.
type RAM int

const (
	OwnRAM      RAM = iota // in QEMU's own memory
	SharedRAM              // in a file that the harness holds too, so that it can save the memory
	RestoredRAM            // in a template's file, copied on write; QEMU waits for the device state
	ReadOnlyRAM            // as RestoredRAM, and QEMU opens the file for reading only
	CopiedRAM              // in a copy of a template's file that the harness holds too, so that it can save the memory; QEMU waits for the device state
)

// restored reports whether the machine is restored from a template.
func (r RAM) restored() bool { return r == RestoredRAM || r == ReadOnlyRAM || r == CopiedRAM }

// backend returns the properties of QEMU's memory-backend-file.
func (r RAM) backend() string {
	return map[RAM]string{SharedRAM: "share=on", CopiedRAM: "share=on", RestoredRAM: "share=off", ReadOnlyRAM: "share=off,readonly=on,rom=off"}[r]
}

// RestoreRAM returns how a QEMU of a version, such as "7.2.22", maps a template's memory. Since 8.2
// QEMU can map a file that it opens for reading only as memory that the guest may write to (rom=off).
func RestoreRAM(version string) RAM {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major > 8 || major == 8 && minor >= 2) {
		return ReadOnlyRAM
	}
	return RestoredRAM
}

// NewRAM returns an unnamed file in the host's memory, of a size in MiB.
func NewRAM(mib int) (*os.File, error) {
	fd, err := unix.MemfdCreate("guesthouse-ram", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "guest's memory")
	if err := f.Truncate(int64(mib) << 20); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
