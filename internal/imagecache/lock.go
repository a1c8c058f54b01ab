package imagecache

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"guesthouse.example/internal/regular"
)

// lockJSON names, for each target, the kernel packages that the tests ran with. The test TestLock of
// package images writes it.
//
//go:embed lock.json
var lockJSON []byte

// gokrazyJSON names, for each target for which gokrazy has a kernel, the Go module that the tests ran with.
// The hash is the module's checksum in go.sum, in hexadecimal, and the size is that of its archive. TestLock
// writes this file too.
//
//go:embed gokrazy.json
var gokrazyJSON []byte

// A Deb identifies one Debian package file, or the archive of a Go module, by its hash.
type Deb struct {
	Package string `json:"package"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
}

func (d Deb) String() string { return d.Package + " " + d.Version }

// A KernelSet is the packages that make up a kernel: one up to Debian 13. Later releases of Debian
// keep the kernel and its modules in packages of their own, on which the first one depends.
type KernelSet []Deb

// Key returns the name of the set in the cache: the SHA-256 of its only file, or of the list of its
// files' hashes.
func (s KernelSet) Key() string {
	if len(s) == 1 {
		return s[0].SHA256
	}
	var list bytes.Buffer
	for _, d := range s {
		fmt.Fprintln(&list, d.SHA256)
	}
	sum, _ := regular.Sum(&list) // Reading memory does not fail.
	return sum
}

// Size returns the bytes of the package files.
func (s KernelSet) Size() (n int64) {
	for _, d := range s {
		n += d.Size
	}
	return n
}

// Tested returns the tested kernel of a target, or nil if none was tested.
func Tested(target string) (KernelSet, error) {
	lock, err := readLock()
	return lock[target], err
}

// Gokrazy returns gokrazy's tested kernel of a target, or nil if gokrazy has none.
func Gokrazy(target string) (KernelSet, error) {
	all, err := readGokrazy()
	return all[target], err
}

// readLock returns the tested kernel of each target.
func readLock() (map[string]KernelSet, error) { return readSets("lock.json", lockJSON) }

func readGokrazy() (map[string]KernelSet, error) { return readSets("gokrazy.json", gokrazyJSON) }

func readSets(name string, data []byte) (sets map[string]KernelSet, err error) {
	if err := json.Unmarshal(data, &sets); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return sets, nil
}
