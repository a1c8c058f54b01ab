package template

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
)

// A Writer writes a template into a directory: first the device state, which QEMU writes, then the
// memory, and the description last. No other user can read the files.
type Writer struct {
	dir        string
	ram, state File
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
	w.ram, err = copyRAM(ctx, filepath.Join(w.dir, ramName), ram)
	return err
}

// Close writes the description, which completes the template. It sets RAM and State of d.
func (w *Writer) Close(d Description) error {
	d.RAM, d.State = w.ram, w.state
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
