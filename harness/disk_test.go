package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/qcow2"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/regular"
)

// write writes a file and returns its path.
func write(t *testing.T, name string, content []byte) string {
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

func TestADiskThatCannotBeIsRefused(t *testing.T) {
	image := qcow2.Empty(1 << 20)
	backed := qcow2.Empty(1 << 20)
	backed[15] = 104 // the place of a backing file's name
	unreadable := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(unreadable, 0o600))
	for says, d := range map[string]Disk{
		"disk 0: size of 0 MiB: name a file, or a size of at least 1":              {},
		"disk 0: size of -1 MiB: name a file, or a size of at least 1":             {Size: -1},
		"disk 0: size of 16777217 MiB: the most is 16777216":                       {Size: 1<<24 + 1},
		`disk 0: an empty disk has no format "raw"`:                                {Size: 1, Format: "raw"},
		"disk 0: an empty disk has no file to write to":                            {Size: 1, Write: true},
		"disk 0, some: a disk with a file has the file's size: leave the size out": {File: "some", Size: 1},
		`disk 0, some: unknown format "vmdk": write "raw" or "qcow2"`:              {File: "some", Format: "vmdk"},
		"disk 0, /nowhere: open /nowhere: no such file or directory":               {File: "/nowhere"},
		"disk 0, /: ":                  {File: "/"},
		"disk 0, " + unreadable + ": ": {File: unreadable},
		"the file is empty":            {File: write(t, "empty", nil)},
		"it begins like an image in format qcow2: write the format, \"qcow2\" or \"raw\"":             {File: write(t, "image", image)},
		"not an image in format qcow2: it does not begin with the magic bytes":                        {File: write(t, "raw.qcow2", make([]byte, 4096))},
		"the image has a backing file: copy it into one file with: qemu-img convert -O qcow2 OLD NEW": {File: write(t, "backed.qcow2", backed)},
		"17 disks: a machine has at most 16":                                                          {Size: -17},
	} {
		s := minimal(t)
		s.Disks = []Disk{d}
		if d.Size == -17 {
			s.Disks = make([]Disk, 17)
		}
		_, err := s.check()
		require.ErrorContains(t, err, says)
	}
}

func TestTheFormatOfADiskIsNotGuessedFromItsContent(t *testing.T) {
	image := qcow2.Empty(1 << 20)
	for _, c := range []struct {
		disk   Disk
		format string
		size   int64
	}{
		{Disk{File: write(t, "image", image), Format: "raw"}, "raw", int64(len(image))},
		{Disk{File: write(t, "image", image), Format: "qcow2"}, "qcow2", 1 << 20},
		{Disk{File: write(t, "image.qcow2", image)}, "qcow2", 1 << 20},
		{Disk{File: write(t, "odd", []byte("x"))}, "raw", 512},
		{Disk{Size: 3}, "", 3 << 20},
	} {
		s := minimal(t)
		s.Disks = []Disk{c.disk}
		p, err := s.check()
		require.NoError(t, err)
		require.Equal(t, c.format, p.qemu.Disks[0].Format)
		require.Equal(t, c.size, p.qemu.Disks[0].Size)
		files, err := p.openDisks(nil)
		require.NoError(t, err)
		defer closeDisks(files)
		args := strings.Join(p.qemu.Args(qemu.OwnRAM, files), " ")
		require.Contains(t, args, "-device virtio-blk-pci,drive=disk0,serial=disk0,")
		require.Contains(t, args, `"backing":`, "QEMU opens no file that an image names")
		require.NotContains(t, args, "image", "QEMU inherits the files")
	}
}

func TestTheFilesOfDisksArePartOfATemplatesIdentity(t *testing.T) {
	file := write(t, "disk", make([]byte, 4096))
	s := minimal(t)
	s.Disks = []Disk{{File: file}, {Size: 1}}
	p, err := s.check()
	require.NoError(t, err)
	require.Equal(t, "", p.noTemplate())
	state := *p.disks[0].File
	require.NoError(t, p.disksUnchanged())

	require.Eventually(t, func() bool { // until the clock of the file system has moved on
		require.NoError(t, os.WriteFile(file, make([]byte, 4096), 0o600))
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		now, err := regular.StateOf(f)
		return err == nil && now != state
	}, time.Minute, time.Millisecond)
	require.ErrorIs(t, p.disksUnchanged(), errDiskChanged)
	_, err = p.openDisks(nil)
	require.ErrorIs(t, err, errDiskChanged)

	s.Disks[0].Write = true
	p, err = s.check()
	require.NoError(t, err)
	require.Equal(t, "it writes to the file of a disk", p.noTemplate())
}

func TestParseDiskTellsASizeFromAFile(t *testing.T) {
	require.Equal(t, Disk{Size: 64}, ParseDisk("64"))
	require.Equal(t, Disk{File: "./64"}, ParseDisk("./64"))
	require.Equal(t, Disk{File: "disk.img"}, ParseDisk("disk.img"))
}
