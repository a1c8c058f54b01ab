package imagecache

import (
	"fmt"
	"os"
	"regexp"

	"guesthouse.example/internal/store"
)

// FindKernel returns the path of the kernel with a SHA-256, in hexadecimal. Its error wraps
// fs.ErrNotExist if the cache has no such kernel.
func (c *Cache) FindKernel(sum string) (string, error) {
	for _, e := range c.entries(Kernels) {
		m, err := ReadManifest(e.Path)
		if err != nil || m.Files[KernelName] != sum {
			continue
		}
		f, err := m.Open(e.Path, KernelName)
		if err != nil {
			continue // It is damaged.
		}
		f.Close()
		store.Use(e.Path)
		return f.Name(), nil
	}
	return "", Fail("find kernel", sum, os.ErrNotExist, "")
}

// FindInitramfs returns the path of the initramfs with a SHA-256, in hexadecimal. Its error wraps
// fs.ErrNotExist if the cache has no such initramfs.
func (c *Cache) FindInitramfs(sum string) (string, error) { return c.find(Initramfs, sum) }

// FindProgram returns the path of the guest program with a SHA-256, in hexadecimal. Its error wraps
// fs.ErrNotExist if the cache has no such program.
func (c *Cache) FindProgram(sum string) (string, error) { return c.find(Programs, sum) }

func (c *Cache) find(folder, sum string) (string, error) {
	file, err := c.hashedPath(folder, sum)
	if err == nil {
		var is string
		if is, err = HashFile(file); err == nil && is != sum {
			err = os.ErrNotExist // It is damaged.
		}
	}
	if err != nil {
		return "", Fail("find "+kinds[folder], sum, err, "")
	}
	store.Use(file)
	return file, nil
}

var isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// hashedPath returns the path of the initramfs or the program with a SHA-256, even if the cache does
// not have it.
func (c *Cache) hashedPath(folder, sum string) (string, error) {
	if !isSHA256.MatchString(sum) {
		return "", fmt.Errorf("%q is not a SHA-256", sum)
	}
	name := sum
	if folder == Initramfs {
		name += ".cpio"
	}
	return c.Path(folder, name), nil
}
