package template

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
)

// A Writer writes a template into a directory: first the device state, which QEMU writes, then the
// memory, and the description last. No other user can read the files.
type Writer struct {
	dir        string
	ram, state File
	disks      [][]File
	base       *baseCopy // nil before BeginRAM
}

// NewWriter returns a Writer for a directory that exists.
func NewWriter(dir string) *Writer { return &Writer{dir: dir} }

// CreateState returns the file that QEMU writes its device state to. Call CloseState when QEMU has
// written it.
func (w *Writer) CreateState() (*os.File, error) {
	return createPrivate(filepath.Join(w.dir, stateName))
}

// CloseState hashes the device state.
func (w *Writer) CloseState() error {
	f, err := os.Open(filepath.Join(w.dir, stateName))
	if err != nil {
		return err
	}
	defer f.Close()
	w.state, err = describe(f)
	return err
}

// CopyRAM copies the memory of the stopped machine, unless ctx ends first.
func (w *Writer) CopyRAM(ctx context.Context, ram *os.File) (err error) {
	w.ram, err = copySparse(ctx, filepath.Join(w.dir, ramName), ram)
	return err
}

// CopyDisk copies what the guest has written to the disk i of the stopped machine, unless ctx ends first:
// the files of the template that the machine was restored from, and the machine's own overlay. Call it for
// all disks in their order.
func (w *Writer) CopyDisk(ctx context.Context, i int, saved []*os.File, overlay *os.File) error {
	layers := []File{} // in JSON, a disk that nobody has written to is []
	if untouched, err := isEmptyImage(overlay); err != nil {
		return err
	} else if !untouched {
		saved = append(slices.Clip(saved), overlay)
	}
	for j, f := range saved {
		layer, err := copySparse(ctx, filepath.Join(w.dir, diskName(i, j)), f)
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	w.disks = append(w.disks, layers)
	return nil
}

// Close writes the description, which completes the template. It sets RAM, State and Disks of d.
func (w *Writer) Close(d Description) error {
	d.RAM, d.State, d.Disks = w.ram, w.state, w.disks
	text, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, descriptionName), append(text, '\n'), 0o600)
}

// createPrivate creates or empties a file that no other user can read.
func createPrivate(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}
