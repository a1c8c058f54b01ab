package template

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"guesthouse.example/harness/internal/qcow2"
	"guesthouse.example/internal/regular"
)

// A DiskIdentity is what the disks of a machine and of its template must have in common.
type DiskIdentity struct {
	Size   int64          `json:"size"` // bytes
	Format string         `json:"format,omitempty"`
	File   *regular.State `json:"file,omitempty"` // the user's; nil if the disk was empty
}

// diskName returns the name of the file with the layer j of the disk i.
func diskName(i, j int) string { return fmt.Sprintf("disk%d.%d", i, j) }

// isEmptyImage reports whether an overlay is as the harness made it: the guest has written nothing.
func isEmptyImage(f *os.File) (bool, error) {
	size, err := qcow2.Size(f)
	if err != nil {
		return false, err
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	empty := qcow2.Empty(size)
	if info.Size() != int64(len(empty)) {
		return false, nil
	}
	now := make([]byte, len(empty))
	if _, err := f.ReadAt(now, 0); err != nil && err != io.EOF {
		return false, err
	}
	return bytes.Equal(now, empty), nil
}

// OpenDisks opens what the guest had written to its disks when it was saved: for each disk, the files from
// the lowest on. Its errors are those of OpenFiles.
func (t *Template) OpenDisks() (disks [][]*os.File, err error) {
	defer func() {
		if err != nil {
			for _, layers := range disks {
				for _, f := range layers {
					f.Close()
				}
			}
			disks, err = nil, fmt.Errorf("template %s: %w", t.dir, err)
		}
	}()
	for i, layers := range t.Disks {
		disks = append(disks, nil)
		for j, layer := range layers {
			f, err := t.openTrusted(diskName(i, j), layer)
			if err != nil {
				return disks, err
			}
			disks[i] = append(disks[i], f)
		}
	}
	return disks, nil
}

// verifyDisks reads the disks' files; see Verify.
func (t *Template) verifyDisks() error {
	for i, layers := range t.Disks {
		for j := range layers {
			f, err := openOwn(filepath.Join(t.dir, diskName(i, j)))
			if err != nil {
				return err
			}
			stat, err := checkContent(f, diskName(i, j), layers[j])
			f.Close()
			if err != nil {
				return err
			}
			layers[j].State = stat
		}
	}
	return nil
}
