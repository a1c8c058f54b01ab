package harness

import "guesthouse.example/internal/regular"

// A Loader is a file that QEMU puts into the memory of a machine before it starts, such as a second part of
// an image, a device tree or data.
type Loader struct {
	File string `json:"file"`

	// Addr is where the bytes of the file go. An ELF file goes to the addresses that it names, and needs none.
	Addr uint64 `json:"addr,omitempty"`
}

// checkLoaders refuses loaders whose files QEMU could not read.
func checkLoaders(all []Loader) error {
	for _, l := range all {
		if err := regular.Check("loader", l.File); err != nil {
			return err
		}
	}
	return nil
}
