package agent

import (
	"fmt"
	"os"
	"path"
	"syscall"

	"guesthouse.example/internal/wire"
)

// A delivery is a file that comes from the harness in chunks. The zero value waits for a first chunk.
type delivery struct {
	file *os.File // incomplete, beside its path; nil between two files
	is   wire.File
	at   int64 // how many bytes have come
}

// add writes a chunk. The file appears at its path with its last chunk. After an error, nothing is
// left of the file.
func (d *delivery) add(c wire.Chunk) (err error) {
	defer func() {
		if err != nil {
			d.abandon()
		}
	}()
	if c.Offset == 0 {
		if err := d.begin(c.File); err != nil {
			return err
		}
	}
	if d.file == nil || c.File != d.is || c.Offset != d.at {
		return fmt.Errorf("a chunk at byte %d of %s does not follow the last one", c.Offset, c.File.Path)
	}
	if _, err := d.file.Write(c.Data); err != nil {
		return err
	}
	d.at += int64(len(c.Data))
	if !c.Last() {
		return nil
	}
	return d.publish()
}

func (d *delivery) begin(f wire.File) error {
	d.abandon()
	dir, name := path.Split(f.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(dir+".delivery-"+name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	d.file, d.is, d.at = file, f, 0
	return nil
}

func (d *delivery) publish() error {
	if err := d.file.Chmod(d.is.Perm); err != nil {
		return err
	}
	// Linux refuses to run a program that is open for writing (ETXTBSY). A child that is being
	// started has a copy of the descriptor until it runs its own program.
	syscall.ForkLock.RLock()
	err := d.file.Close()
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	if err := os.Rename(d.file.Name(), d.is.Path); err != nil {
		return err
	}
	d.file = nil
	return nil
}

// abandon removes an incomplete file.
func (d *delivery) abandon() {
	if d.file != nil {
		d.file.Close()
		os.Remove(d.file.Name())
		d.file = nil
	}
}
