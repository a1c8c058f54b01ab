package contexts

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
)

// The states of a host in which the build of an image waits.
const (
	locked   = "another process builds the same"
	goHangs  = "the go command hangs"
	aptHangs = "apt hangs"
	isFIFO   = "the kernel is a FIFO"
	slow     = "the imported data does not arrive"
)

const guest = "guesthouse.example/guest/cmd/uinit"

var ofImages = []row[images.Options]{
	{name: "images.Build", call: func(ctx context.Context, o images.Options) error {
		_, err := images.Build(ctx, target, guest, o)
		return err
	}, atOnce: map[string]string{isFIFO: "not a regular file"}},
	{name: "images.BuildInitramfs", call: func(ctx context.Context, o images.Options) error {
		_, _, err := images.BuildInitramfs(ctx, images.Kernel{Target: target}, guest, o)
		return err
	}},
	{name: "images.Platform", call: func(ctx context.Context, o images.Options) error {
		_, err := images.Platform(ctx, target, o)
		return err
	}, atOnce: map[string]string{isFIFO: "not a regular file"}},
	{name: "images.Program", call: func(ctx context.Context, o images.Options) error {
		_, err := images.Program(ctx, target, guest, o)
		return err
	}},
	{name: "images.PlatformAndProgram", call: func(ctx context.Context, o images.Options) error {
		_, _, err := images.PlatformAndProgram(ctx, target, guest, o)
		return err
	}, atOnce: map[string]string{isFIFO: "not a regular file"}},
	{name: "images.Offers", call: func(ctx context.Context, o images.Options) error {
		_, err := images.Offers(ctx, target, o)
		return err
	}},
	{name: "images.OwnDir", call: func(ctx context.Context, o images.Options) error {
		_, err := images.OwnDir(ctx)
		return err
	}, atOnce: map[string]string{goHangs: ""}}, // the sources are here, so it asks no go command
	{name: "images.FetchKernel", call: func(ctx context.Context, o images.Options) error {
		_, err := images.FetchKernel(ctx, target, o)
		return err
	}, atOnce: map[string]string{isFIFO: "not a regular file"}},
	{name: "imagecache.Cache.Build", call: func(ctx context.Context, o images.Options) error {
		b, err := cacheOf(o).Build(ctx, "check")
		if err == nil {
			b.Close()
		}
		return err
	}},
	{name: "imagecache.Cache.BuildOutside", call: func(ctx context.Context, o images.Options) error {
		b, err := cacheOf(o).BuildOutside(ctx, "check")
		if err == nil {
			b.Close()
		}
		return err
	}},
	{name: "imagecache.Cache.Check", call: func(ctx context.Context, o images.Options) error {
		_, err := cacheOf(o).Check(ctx)
		return err
	}},
	{name: "imagecache.Cache.ImportKernel", call: func(ctx context.Context, o images.Options) error {
		reader, writer := io.Pipe()
		defer writer.Close() // until then the pipe is empty
		_, err := cacheOf(o).ImportKernel(ctx, strings.Repeat("0", 64), reader)
		return err
	}},
	{name: "imagecache.Cache.ImportInitramfs", call: func(ctx context.Context, o images.Options) error {
		reader, writer := io.Pipe()
		defer writer.Close()
		_, err := cacheOf(o).ImportInitramfs(ctx, strings.Repeat("0", 64), reader)
		return err
	}},
	{name: "imagecache.Cache.ImportProgram", call: func(ctx context.Context, o images.Options) error {
		reader, writer := io.Pipe()
		defer writer.Close()
		_, err := cacheOf(o).ImportProgram(ctx, strings.Repeat("0", 64), reader)
		return err
	}},
	{name: "imagecache.Cache.Put", call: func(ctx context.Context, o images.Options) error {
		_, _, err := cacheOf(o).Put(ctx, imagecache.Programs, nil)
		return err
	}},
	{name: "imagecache.Cache.RemoveKernels", call: func(ctx context.Context, o images.Options) error { return cacheOf(o).RemoveKernels(ctx) }},
	{name: "imagecache.Cache.Clear", call: func(ctx context.Context, o images.Options) error { return cacheOf(o).Clear(ctx) }},
}

// cacheOf opens a cache that cannot fail to open.
func cacheOf(o images.Options) *imagecache.Cache {
	c, err := imagecache.Open(o.Cache)
	if err != nil {
		panic(err)
	}
	return c
}

func tryImages(t *testing.T, state string, o images.Options, names ...string) {
	t.Helper()
	tried := 0
	for _, r := range ofImages {
		for _, name := range names {
			if r.name == name {
				tried++
				t.Run(r.name, func(t *testing.T) { try(t, r, state, o) })
			}
		}
	}
	require.Equal(t, len(names), tried)
}

// sumOfNothing is the SHA-256 of an empty file.
const sumOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// The test holds the locks with other descriptions of the same files, as another process would.
func TestABuildEndsWithItsContextWhileAnotherHasTheLock(t *testing.T) {
	o := images.Options{Cache: t.TempDir()}
	require.NoError(t, os.MkdirAll(filepath.Join(o.Cache, "locks"), 0o777))
	for _, thing := range []string{"kernel-" + target, "busybox-" + target, "check", "clear", "remove-kernels", "import-kernel", "import-initramfs", "import-program",
		imagecache.Programs + "-" + sumOfNothing[:16]} {
		lock := flock.New(filepath.Join(o.Cache, "locks", thing))
		ok, err := lock.TryLock()
		require.NoError(t, err)
		require.True(t, ok)
		defer lock.Close()
	}
	tryImages(t, locked, o, "images.Build", "images.BuildInitramfs", "images.FetchKernel", "imagecache.Cache.Build", "imagecache.Cache.BuildOutside",
		"imagecache.Cache.Check", "imagecache.Cache.Clear", "imagecache.Cache.ImportKernel", "imagecache.Cache.ImportInitramfs",
		"images.Platform", "images.PlatformAndProgram", "imagecache.Cache.ImportProgram", "imagecache.Cache.Put", "imagecache.Cache.RemoveKernels")
}

func TestAnImportEndsWithItsContextWhileItsReaderBlocks(t *testing.T) {
	tryImages(t, slow, images.Options{Cache: t.TempDir()}, "imagecache.Cache.ImportKernel", "imagecache.Cache.ImportInitramfs", "imagecache.Cache.ImportProgram")
}

// hanging puts programs with these names into PATH. They hang, with a child that holds their output open.
func hanging(t *testing.T, names ...string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nsleep 1000 &\nwait\n"), 0o755))
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestABuildEndsWithItsContextWhileTheGoCommandHangs(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "kernel")
	require.NoError(t, os.WriteFile(kernel, []byte("of no known format"), 0o600))
	hanging(t, "go")
	tryImages(t, goHangs, images.Options{Cache: t.TempDir(), Kernel: kernel}, "images.Build", "images.BuildInitramfs",
		"images.Platform", "images.Program", "images.PlatformAndProgram", "images.OwnDir")
}

func TestABuildEndsWithItsContextWhileAptHangs(t *testing.T) {
	hanging(t, "apt-get", "apt-cache", "dpkg-deb")
	tryImages(t, aptHangs, images.Options{Cache: t.TempDir()}, "images.Build", "images.FetchKernel", "images.Platform", "images.Offers")
}

func TestABuildIsNotHeldUpByAFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o777))
	tryImages(t, isFIFO, images.Options{Cache: t.TempDir(), Kernel: fifo}, "images.Build", "images.FetchKernel")
}
