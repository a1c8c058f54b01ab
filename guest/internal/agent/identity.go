package agent

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// kernelBootID is where programs look for the boot identity.
const kernelBootID = "/proc/sys/kernel/random/boot_id"

// BootID returns the identity of this boot or restore, in the form of
// /proc/sys/kernel/random/boot_id. Until the machine is saved, it is the kernel's own.
func BootID() string { return bootID().String() }

func bootID() wire.BootID {
	for _, file := range []string{wire.BootIDFile, kernelBootID} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if id, err := wire.ParseBootID(string(text)); err == nil {
			return id
		}
	}
	return ownBootID() // the kernel has no boot_id, and init runs no agent
}

var ownBootID = sync.OnceValue(func() (id wire.BootID) {
	rand.Read(id[:])
	return id
})

// An identityFile is wire.BootIDFile, mapped into memory. The agent of a restored machine writes the
// new identity there before the programs continue. Writing to memory needs no system call, whose code
// QEMU would have to translate first.
type identityFile []byte

func newIdentityFile() (identityFile, error) {
	id := bootID()
	if err := os.MkdirAll(filepath.Dir(wire.BootIDFile), 0o755); err != nil {
		return nil, fmt.Errorf("boot identity: %w", err)
	}
	file, err := os.OpenFile(wire.BootIDFile, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o444)
	if err != nil {
		return nil, fmt.Errorf("boot identity: %w", err)
	}
	defer file.Close()
	if _, err := file.WriteString(id.String() + "\n"); err != nil {
		return nil, fmt.Errorf("boot identity: %w", err)
	}
	text, err := unix.Mmap(int(file.Fd()), 0, len(id.String()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("boot identity: %w", &os.PathError{Op: "mmap", Path: wire.BootIDFile, Err: err})
	}
	f := identityFile(text)
	f.write(id) // brings the page into memory
	if err := unix.Mount(wire.BootIDFile, kernelBootID, "", unix.MS_BIND, ""); err != nil {
		return f, fmt.Errorf("boot identity: %w", &os.PathError{Op: "mount over", Path: kernelBootID, Err: err})
	}
	return f, nil
}

func (f identityFile) write(id wire.BootID) { copy(f, id.String()) }
