package imagecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
)

// ImportKernel reads a kernel from r into the cache and returns its path. A kernel with another
// SHA-256 than sum is an error. If ctx ends while a Read of r blocks, ImportKernel returns without
// waiting for the Read.
func (c *Cache) ImportKernel(ctx context.Context, sum string, r io.Reader) (string, error) {
	return c.imported(ctx, "kernel", sum, r, func(b *store.Build) (string, error) {
		dir := c.Path(Kernels, sum)
		if err := os.Mkdir(b.Path("kernel"), 0o777); err != nil {
			return "", err
		}
		if err := os.Rename(b.Path(importName), filepath.Join(b.Path("kernel"), KernelName)); err != nil {
			return "", err
		}
		if err := (Manifest{Files: map[string]string{KernelName: sum}}).Write(b.Path("kernel")); err != nil {
			return "", err
		}
		return filepath.Join(dir, KernelName), b.Publish("kernel", dir)
	})
}

// ImportInitramfs reads an initramfs from r into the cache and returns its path. An initramfs with
// another SHA-256 than sum is an error. If ctx ends while a Read of r blocks, ImportInitramfs returns
// without waiting for the Read.
func (c *Cache) ImportInitramfs(ctx context.Context, sum string, r io.Reader) (string, error) {
	return c.importHashed(ctx, Initramfs, sum, r)
}

// ImportProgram is like ImportInitramfs, for a guest program.
func (c *Cache) ImportProgram(ctx context.Context, sum string, r io.Reader) (string, error) {
	return c.importHashed(ctx, Programs, sum, r)
}

func (c *Cache) importHashed(ctx context.Context, folder, sum string, r io.Reader) (string, error) {
	return c.imported(ctx, kinds[folder], sum, r, func(b *store.Build) (string, error) {
		return c.publishHashed(b, folder, sum)
	})
}

// Put writes an initramfs or a guest program into the cache, unless it is there. The folder is Initramfs or
// Programs. Put returns the path and the SHA-256 in hexadecimal.
func (c *Cache) Put(ctx context.Context, folder string, data []byte) (path, sum string, err error) {
	sum, _ = regular.Sum(bytes.NewReader(data)) // Reading memory does not fail.
	if path, err = c.find(folder, sum); err == nil {
		return path, sum, nil
	}
	if path, err = c.put(ctx, folder, sum, data); err != nil {
		return "", "", Fail("write "+kinds[folder], sum, err, "")
	}
	return path, sum, nil
}

func (c *Cache) put(ctx context.Context, folder, sum string, data []byte) (string, error) {
	b, err := c.Build(ctx, folder+"-"+sum[:16])
	if err != nil {
		return "", err
	}
	defer b.Close()
	if err := os.WriteFile(b.Path(importName), data, 0o666); err != nil {
		return "", err
	}
	path, err := c.publishHashed(b, folder, sum)
	if err == nil {
		c.Prune(folder)
	}
	return path, err
}

// publishHashed moves the file importName of a build to its place in a folder whose names are hashes.
func (c *Cache) publishHashed(b *store.Build, folder, sum string) (string, error) {
	file, err := c.hashedPath(folder, sum)
	if err == nil && folder == Programs {
		err = makeExecutable(b.Path(importName))
	}
	if err != nil {
		return "", err
	}
	return file, b.Publish(importName, file)
}

// makeExecutable lets everybody who may read a file execute it.
func makeExecutable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.Chmod(file, info.Mode()|info.Mode()>>2&0o111)
}

const importName = "import" // the name of the file in the build's directory

// imported reads a file into a build's directory, checks it, and calls publish.
func (c *Cache) imported(ctx context.Context, what, sum string, r io.Reader, publish func(*store.Build) (string, error)) (string, error) {
	step := "import " + what
	if !isSHA256.MatchString(sum) {
		return "", Fail(step, sum, errors.New("not a SHA-256"), "")
	}
	b, err := c.Build(ctx, "import-"+what)
	if err != nil {
		return "", Fail(step, sum, err, "")
	}
	defer b.Close()
	h := sha256.New()
	f, err := os.Create(b.Path(importName))
	if err == nil {
		err = copyUntil(ctx, io.MultiWriter(f, h), r)
		err = errors.Join(err, f.Close())
	}
	if is := hex.EncodeToString(h.Sum(nil)); err == nil && is != sum {
		err = fmt.Errorf("its SHA-256 is %s", is)
	}
	var path string
	if err == nil {
		path, err = publish(b)
	}
	if err != nil {
		return "", Fail(step, sum, err, "")
	}
	return path, nil
}

// copyUntil copies until r or ctx ends. When ctx ends, it does not wait for a Read of r that blocks.
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
	read.Close() // If w has failed, this ends the goroutine.
	return err
}
