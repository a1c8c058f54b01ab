package harness

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/qcow2"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/testcache"
)

// A Disk is a virtio disk of a machine: a file of the host, or an empty disk. What the guest writes is in
// an overlay that ends with the machine, so any number of machines can have the same file. A saved machine
// keeps the overlay.
//
// The guest finds its disks in their order as /dev/vda, /dev/vdb and so on, and by the serial numbers
// "disk0", "disk1" and so on in /sys/block/vd*/serial.
type Disk struct {
	// File is a regular file of the host. If it is empty, the disk is empty and has Size.
	File string `json:"file,omitempty"`

	// Format is the format of File: "raw" or "qcow2". If it is empty, it is qcow2 for a file whose name
	// ends in .qcow2, and raw otherwise. It is never guessed from the content, which a guest may have
	// written. A qcow2 image with a backing file is refused.
	Format string `json:"format,omitempty"`

	// Size is the size of an empty disk in MiB.
	Size int `json:"size_mib,omitempty"`

	// Write lets the guest write to File itself. No other machine can then use the file, and the machine
	// has no templates.
	Write bool `json:"write,omitempty"`
}

// ParseDisk parses a disk as the command line has it: a size in MiB, such as "64", or a file, such as
// "data.img" or "./64".
func ParseDisk(text string) Disk {
	if mib, err := strconv.Atoi(text); err == nil {
		return Disk{Size: mib}
	}
	return Disk{File: text}
}

const (
	maxDisks    = 16 // the machines have slots for more devices
	formatRaw   = "raw"
	formatQCOW2 = "qcow2"
)

// checkDisks refuses disks that no machine can have. It opens no file.
func checkDisks(disks []Disk) error {
	if len(disks) > maxDisks {
		return fmt.Errorf("%d disks: a machine has at most %d", len(disks), maxDisks)
	}
	for i, d := range disks {
		var err error
		switch {
		case d.File == "" && d.Format != "":
			err = fmt.Errorf("an empty disk has no format %q", d.Format)
		case d.File == "" && d.Write:
			err = errors.New("an empty disk has no file to write to")
		case d.File == "" && d.Size <= 0:
			err = fmt.Errorf("size of %d MiB: name a file, or a size of at least 1", d.Size)
		case d.File == "" && int64(d.Size) > qcow2.MaxSize>>20:
			err = fmt.Errorf("size of %d MiB: the most is %d", d.Size, qcow2.MaxSize>>20)
		case d.File != "" && d.Size != 0:
			err = errors.New("a disk with a file has the file's size: leave the size out")
		case d.Format != "" && d.Format != formatRaw && d.Format != formatQCOW2:
			err = fmt.Errorf("unknown format %q: write %q or %q", d.Format, formatRaw, formatQCOW2)
		}
		if err != nil {
			return diskError(i, d, err)
		}
	}
	return nil
}

func diskError(i int, d Disk, err error) error {
	if d.File != "" {
		return fmt.Errorf("disk %d, %s: %w", i, d.File, err)
	}
	return fmt.Errorf("disk %d: %w", i, err)
}

// findDisks completes the plan's disks with what their files say, and remembers the files' states.
func (p *plan) findDisks() error {
	p.spec.Disks = append([]Disk(nil), p.spec.Disks...)
	for i := range p.spec.Disks {
		d := &p.spec.Disks[i]
		disk := qemu.Disk{Format: d.Format, Size: int64(d.Size) << 20, Write: d.Write}
		id := template.DiskIdentity{Size: disk.Size}
		if d.File != "" {
			var err error
			if d.File, err = filepath.Abs(d.File); err != nil {
				return err
			}
			state, err := readDisk(*d, &disk)
			if err != nil {
				return diskError(i, *d, err)
			}
			id = template.DiskIdentity{Size: disk.Size, Format: disk.Format, File: &state}
		}
		p.qemu.Disks, p.disks = append(p.qemu.Disks, disk), append(p.disks, id)
	}
	return nil
}

// readDisk sets the file, the format and the size of disk from the file of d, and returns the file's state.
func readDisk(d Disk, disk *qemu.Disk) (state regular.State, err error) {
	f, err := openDisk(d)
	if err != nil {
		return state, err
	}
	defer f.Close()
	if state, err = regular.StateOf(f); err != nil {
		return state, err
	}
	disk.File = d.File
	disk.Format = cmp.Or(d.Format, formatRaw)
	if d.Format == "" && strings.HasSuffix(d.File, "."+formatQCOW2) {
		disk.Format = formatQCOW2
	}
	if disk.Format == formatQCOW2 {
		disk.Size, err = qcow2.Size(f)
		return state, err
	}
	magic := make([]byte, len(qcow2.Magic))
	f.ReadAt(magic, 0) // a file that is too short has no magic
	switch {
	case d.Format == "" && string(magic) == qcow2.Magic:
		return state, fmt.Errorf("it begins like an image in format %s: write the format, %[1]q or %q", formatQCOW2, formatRaw)
	case state.Size == 0:
		return state, errors.New("the file is empty")
	}
	disk.Size = (state.Size + 511) / 512 * 512
	return state, nil
}

// openDisk opens the file of a disk. Its error says who else uses the file, if that forbids it.
func openDisk(d Disk) (*os.File, error) {
	f, err := regular.Open(d.File)
	if err != nil {
		return nil, err
	}
	if d.Write {
		f.Close()
		// regular.Open has refused other kinds of files, whose opening may have effects.
		if f, err = os.OpenFile(d.File, os.O_RDWR, 0); err != nil {
			return nil, err
		}
	}
	if err := lockedByQEMU(f, d.Write); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockedByQEMU returns an error if another QEMU uses a disk's file in a way that forbids this use. QEMU would
// refuse the file too, in less clear words. Source: block/file-posix.c of QEMU, whose locks are on a byte for
// each permission.
func lockedByQEMU(f *os.File, write bool) error {
	const permissions, shared = 100, 200 // the first byte for what a QEMU does, and for what it does not share
	const reads, writes = 0, 1           // the permissions, as offsets
	use := func(at int64) bool {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
	}
	switch {
	case use(permissions + writes):
		return errors.New("another machine writes to the file")
	case use(shared + reads), write && use(shared+writes):
		return errors.New("another machine uses the file and does not share it")
	}
	return nil
}

// openDisks opens the files of all disks for one machine, and makes the overlays. t is the machine's template,
// or nil. It fails if a file has changed since the plan was made.
func (p *plan) openDisks(t *template.Template) (disks []qemu.DiskFiles, err error) {
	defer func() {
		if err != nil {
			closeDisks(disks)
			disks = nil
		}
	}()
	var saved [][]*os.File
	if t != nil {
		if saved, err = t.OpenDisks(); err != nil {
			return nil, err
		}
	}
	disks = make([]qemu.DiskFiles, len(p.spec.Disks))
	for i := range saved {
		disks[i].Saved = saved[i]
	}
	for i, d := range p.spec.Disks {
		if d.File != "" {
			if disks[i].User, err = p.openAgain(i); err != nil {
				return disks, diskError(i, d, err)
			}
		}
		if !d.Write {
			if disks[i].Overlay, err = newOverlay(p.qemu.Disks[i].Size); err != nil {
				return disks, diskError(i, d, err)
			}
		}
	}
	return disks, nil
}

var errDiskChanged = errors.New("the file was changed while a machine used it")

// openAgain opens the file of a disk, which must be as it was when the plan was made, unless the guest
// itself may write to it.
func (p *plan) openAgain(i int) (*os.File, error) {
	d := p.spec.Disks[i]
	f, err := openDisk(d)
	if err != nil {
		return nil, err
	}
	state, err := regular.StateOf(f)
	if err == nil && !d.Write && state != *p.disks[i].File {
		err = errDiskChanged
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// disksUnchanged returns an error if the file of a disk has changed since the plan was made. A template of the
// machine would then have other content than its identity says.
func (p *plan) disksUnchanged() error {
	for i, d := range p.spec.Disks {
		if d.File == "" {
			continue
		}
		f, err := p.openAgain(i)
		if err != nil {
			return diskError(i, d, err)
		}
		f.Close()
	}
	return nil
}

// newOverlay returns an unnamed file in the directory of temporary files, for what a guest writes to a disk.
func newOverlay(size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "guesthouse-disk-*")
	if err != nil {
		return nil, err
	}
	// Nothing is left of it even if this process is killed from here on.
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Write(qcow2.Empty(size)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func closeDisks(disks []qemu.DiskFiles) {
	for _, d := range disks {
		d.Close()
	}
}

// noteDisks tells the go command's cache of test results which files the machine reads.
func (p *plan) noteDisks() {
	for _, d := range p.spec.Disks {
		if d.File != "" {
			testcache.Depends(d.File)
		}
	}
}

// writes reports whether the guest writes to a file of the host.
func (p *plan) writes() bool {
	for _, d := range p.spec.Disks {
		if d.Write {
			return true
		}
	}
	return false
}
