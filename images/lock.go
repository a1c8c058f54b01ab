package images

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"guesthouse.example/internal/target"
)

// lockJSON is the tested state: for each target the kernel packages that the
// tests ran with. updateLock writes it.
//
//go:embed lock.json
var lockJSON []byte

// A deb is one Debian package file, named so that no two are taken for each
// other.
type deb struct {
	Package string `json:"package"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
}

func (d deb) String() string { return d.Package + " " + d.Version }

// A kernelSet is what makes up a kernel: one package up to Debian 13; later
// Debian keeps the kernel and its modules in packages of their own, on which the
// first one depends.
type kernelSet []deb

// key names the set in the cache: the SHA-256 of its one file, or of the list
// of its files' hashes.
func (s kernelSet) key() string {
	if len(s) == 1 {
		return s[0].SHA256
	}
	var list string
	for _, d := range s {
		list += d.SHA256 + "\n"
	}
	return hashBytes([]byte(list))
}

func (s kernelSet) size() (n int64) {
	for _, d := range s {
		n += d.Size
	}
	return n
}

// lockedSet returns the tested kernel of a target; none if it was never tested.
func lockedSet(targetName string) (kernelSet, error) {
	var lock map[string]kernelSet
	if err := json.Unmarshal(lockJSON, &lock); err != nil {
		return nil, fmt.Errorf("lock.json: %w", err)
	}
	return lock[targetName], nil
}

// updateLock returns a lock file with the newest kernel of each target that the
// client's sources offer.
func updateLock(ctx context.Context, o Options) ([]byte, error) {
	lock := make(map[string]kernelSet)
	for _, t := range target.All() {
		c, err := openCache(o)
		if err != nil {
			return nil, err
		}
		set, err := newestSet(ctx, c, t)
		if err != nil {
			return nil, fail("lock kernel", t.Name, err, "")
		}
		lock[t.Name] = set
	}
	data, err := json.MarshalIndent(lock, "", "\t")
	return append(data, '\n'), err
}

func newestSet(ctx context.Context, c cache, t target.Target) (kernelSet, error) {
	w, err := c.workshop(ctx, "kernel-"+t.Name)
	if err != nil {
		return nil, err
	}
	defer w.close()
	a, err := newApt(w.path("apt"), t.DebianArch)
	if err != nil {
		return nil, err
	}
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	return a.newest(ctx, t.KernelPackage)
}
