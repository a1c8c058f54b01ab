// Package template keeps a saved machine as files: the guest's memory, QEMU's device state and a
// description. It writes them, checks them, and shares them in a cache.
//
// It does not talk to QEMU or to the guest: package vm stops the machine, makes QEMU write its device
// state, and restores machines from the files that this package opens.
//
// A template is a directory:
//
//	ram            the memory, with holes where it is zero
//	state          the devices and the processor, as QEMU's migration writes them
//	disk0.0, …     what the guest has written to its disks, in layers; see package qcow2
//	template.json  a Description
//
// Nothing is ever written to a template: any number of machines map its memory at once, each with
// its own copy of the pages that it writes to.
package template

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/internal/regular"
)

const (
	ramName         = "ram"
	stateName       = "state"
	descriptionName = "template.json"
)

// A Description is the content of template.json.
type Description struct {
	Of      Identity      `json:"of"`
	Guest   string        `json:"guest,omitempty"` // the name of the guest program, for people
	Version string        `json:"qemu_version"`    // from the greeting of QEMU's monitor
	Saved   time.Time     `json:"saved"`
	RAM     File          `json:"ram"`
	State   File          `json:"state"`
	Disks   [][]File      `json:"disks,omitempty"` // by disk, the layers from the lowest on
	Console console.State `json:"console"`
	Agent   *agent.Saved  `json:"agent,omitempty"` // nil for a guest without an agent
	Cards   []string      `json:"cards,omitempty"` // the hardware addresses that a guest without an agent has on networks of the harness
}

// A File is the state and the hash of a file when the machine was saved.
type File struct {
	regular.State
	SHA256 string `json:"sha256"` // of memory and disks: that of blockSums
}

// A Template is the directory of a template and its description.
type Template struct {
	dir string
	Description
}

// Open reads the description of the template in a directory. The other files are checked when they
// are opened.
func Open(dir string) (*Template, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t := &Template{dir: dir}
	text, err := readOwn(filepath.Join(dir, descriptionName))
	if err != nil {
		return nil, fmt.Errorf("template: %w", faultIfMissing(err))
	}
	if err := json.Unmarshal(text, &t.Description); err != nil {
		return nil, fmt.Errorf("template %s: %s: %w", dir, descriptionName, Fault{err})
	}
	return t, nil
}

// Dir returns the template's directory.
func (t *Template) Dir() string { return t.dir }

// Files returns the paths of the template's files.
func (t *Template) Files() []string {
	names := []string{descriptionName, stateName, ramName}
	for i, layers := range t.Disks {
		for j := range layers {
			names = append(names, diskName(i, j))
		}
	}
	for i, name := range names {
		names[i] = filepath.Join(t.dir, name)
	}
	return names
}

// Verify reads the complete template and returns a Fault if it differs from what was saved. Afterwards
// OpenFiles and OpenDisks trust the memory and the disks without reading it again, even in a copy of the template, until the file
// changes.
func (t *Template) Verify() error {
	f, err := regular.Open(filepath.Join(t.dir, ramName))
	if err != nil {
		return fmt.Errorf("template %s: %w", t.dir, faultIfMissing(err))
	}
	defer f.Close()
	stat, err := checkContent(f, ramName, t.RAM)
	if err == nil {
		err = t.verifyDisks()
	}
	if err != nil {
		return fmt.Errorf("template %s: %w", t.dir, err)
	}
	t.RAM.State = stat
	ram, state, err := t.OpenFiles()
	if err != nil {
		return err
	}
	ram.Close()
	state.Close()
	return nil
}

// OpenFiles opens the memory and the device state for one machine. It returns a Fault for files that
// differ from what was saved, and for files that another user could have written. The machine does not
// need the directory afterwards.
func (t *Template) OpenFiles() (ram, state *os.File, err error) {
	ram, err = t.openTrusted(ramName, t.RAM)
	if err == nil {
		if state, err = t.openState(); err != nil {
			ram.Close()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("template %s: %w", t.dir, err)
	}
	return ram, state, nil
}

// openTrusted trusts a file if it has not changed since it was saved or verified. Otherwise, for
// example in a copy of the template, it reads the complete file.
func (t *Template) openTrusted(name string, saved File) (*os.File, error) {
	f, err := openOwn(filepath.Join(t.dir, name))
	if err != nil {
		return nil, err
	}
	stat, err := regular.StateOf(f)
	if err == nil && stat != saved.State {
		_, err = checkContent(f, name, saved)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checkContent reads a complete file that copySparse wrote and returns a Fault if it differs from what was
// saved. It returns the state that the file had before it was read.
func checkContent(f *os.File, name string, saved File) (regular.State, error) {
	stat, err := regular.StateOf(f)
	if err != nil {
		return stat, err
	}
	sum := ""
	if stat.Size == saved.Size {
		sums, err := sumBlocks(context.Background(), f, saved.Size, nil)
		if err != nil {
			return stat, err
		}
		sum = sums.String()
	}
	if sum != saved.SHA256 {
		return stat, Fault{fmt.Errorf("%s is damaged: it has %d bytes of %d, or other bytes than were saved; save the machine again", name, stat.Size, saved.Size)}
	}
	return stat, nil
}

func (t *Template) openState() (*os.File, error) {
	f, err := openOwn(filepath.Join(t.dir, stateName))
	if err != nil {
		return nil, err
	}
	stat, err := describe(f)
	if err == nil && (stat.Size != t.State.Size || stat.SHA256 != t.State.SHA256) {
		err = Fault{fmt.Errorf("%s is damaged: it has %d bytes of %d, or other bytes than were saved; save the machine again", stateName, stat.Size, t.State.Size)}
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// describe returns the state and the hash of a file, which it reads to its end.
func describe(f *os.File) (File, error) {
	stat, err := regular.StateOf(f)
	if err != nil {
		return File{}, err
	}
	sum, err := regular.Sum(f)
	return File{stat, sum}, err
}

// openOwn opens a file. It returns a Fault if another user could have written the file.
func openOwn(file string) (*os.File, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, faultIfMissing(err)
	}
	if err := checkOwner(f); err != nil {
		f.Close()
		return nil, Fault{err}
	}
	return f, nil
}

func readOwn(file string) ([]byte, error) {
	f, err := openOwn(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// checkOwner refuses a file that another user could have written: a user who can write to a template
// controls every machine that is restored from it.
func checkOwner(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch {
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Errorf("%s belongs to another user, whose number is %d", f.Name(), st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by other users (its mode is %#o)", f.Name(), st.Mode&0o777)
	}
	return nil
}
