package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

// FindKernel returns the path of a kernel with a SHA-256, in hexadecimal, if the cache has one:
// nothing is fetched. It returns an error that wraps [os.ErrNotExist] if not.
func FindKernel(sum string, o Options) (string, error) {
	c, err := openCache(o)
	if err != nil {
		return "", err
	}
	for _, k := range c.list("kernels") {
		m, err := readManifest(k.path)
		if err != nil || m.Files[kernelName] != sum {
			continue
		}
		f, err := m.open(k.path, kernelName)
		if err != nil {
			continue // it is damaged
		}
		f.Close()
		used(k.path)
		return f.Name(), nil
	}
	return "", fail("find kernel", sum, os.ErrNotExist, "")
}

// FindInitramfs returns the path of an initramfs with a SHA-256, in hexadecimal, if the cache has
// one. It returns an error that wraps [os.ErrNotExist] if not.
func FindInitramfs(sum string, o Options) (string, error) {
	c, err := openCache(o)
	if err != nil {
		return "", err
	}
	file, err := c.initramfs(sum)
	if err == nil {
		var is string
		if is, err = hashFile(file); err == nil && is != sum {
			err = os.ErrNotExist // it is damaged
		}
	}
	if err != nil {
		return "", fail("find initramfs", sum, err, "")
	}
	used(file)
	return file, nil
}

const kernelName = "vmlinuz" // in a directory of the cache

var isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// initramfs returns where one with a SHA-256 is kept.
func (c cache) initramfs(sum string) (string, error) {
	if !isSHA256.MatchString(sum) {
		return "", fmt.Errorf("%q is no SHA-256", sum)
	}
	return c.path("initramfs", sum+".cpio"), nil
}

// ImportKernel puts a kernel that was brought along into the cache and returns its path. It
// refuses one with another SHA-256. When ctx ends while r blocks, a Read of r is left behind.
func ImportKernel(ctx context.Context, sum string, r io.Reader, o Options) (string, error) {
	return bring(ctx, "kernel", sum, r, o, func(c cache, w *workshop) (string, error) {
		dir := c.path("kernels", sum)
		if err := os.Mkdir(w.path("kernel"), 0o777); err != nil {
			return "", err
		}
		if err := os.Rename(w.path(brought), filepath.Join(w.path("kernel"), kernelName)); err != nil {
			return "", err
		}
		if err := (manifest{Files: map[string]string{kernelName: sum}}).write(w.path("kernel")); err != nil {
			return "", err
		}
		return filepath.Join(dir, kernelName), w.publish("kernel", dir)
	})
}

// ImportInitramfs puts an initramfs that was brought along into the cache and returns its path.
// It refuses one with another SHA-256. When ctx ends while r blocks, a Read of r is left behind.
func ImportInitramfs(ctx context.Context, sum string, r io.Reader, o Options) (string, error) {
	return bring(ctx, "initramfs", sum, r, o, func(c cache, w *workshop) (string, error) {
		file, err := c.initramfs(sum)
		if err != nil {
			return "", err
		}
		return file, w.publish(brought, file)
	})
}

const brought = "brought" // in a workshop

// bring reads a file into a workshop, checks it and has it put into the cache.
func bring(ctx context.Context, what, sum string, r io.Reader, o Options, put func(cache, *workshop) (string, error)) (string, error) {
	c, err := openCache(o)
	if err != nil {
		return "", err
	}
	step := "import " + what
	if !isSHA256.MatchString(sum) {
		return "", fail(step, sum, errors.New("this is no SHA-256"), "")
	}
	w, err := c.workshop(ctx, "import-"+what)
	if err != nil {
		return "", fail(step, sum, err, "")
	}
	defer w.close()
	h := sha256.New()
	f, err := os.Create(w.path(brought))
	if err == nil {
		err = copyUntil(ctx, io.MultiWriter(f, h), r)
		err = errors.Join(err, f.Close())
	}
	if is := hex.EncodeToString(h.Sum(nil)); err == nil && is != sum {
		err = fmt.Errorf("its SHA-256 is %s", is)
	}
	var path string
	if err == nil {
		path, err = put(c, w)
	}
	if err != nil {
		return "", fail(step, sum, err, "")
	}
	return path, nil
}

// copyUntil copies until ctx ends. A Read of r that still blocks then is left behind.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	read, write := io.Pipe()
	defer context.AfterFunc(ctx, func() { read.CloseWithError(context.Cause(ctx)) })()
	go func() {
		_, err := io.Copy(write, r)
		write.CloseWithError(err)
	}()
	_, err := io.Copy(w, read)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	read.Close() // ends the goroutine where w has failed
	return err
}
