// Package images turns the name of a target and a Go package into the two
// files a machine boots from: a kernel and an initramfs.
//
// The kernel is a stock Debian package, fetched with the client's own apt
// sources and apt's own signature checks, for any architecture, without root
// and without touching the system. The initramfs holds an init, u-root's shell
// and commands, the kernel modules that drive the target's devices, and the
// guest program as /bin/uinit, which init starts.
//
//	img, err := images.Build(ctx, "arm64", "./cmd/upper", images.Options{Log: os.Stderr})
//
// Everything made is kept in a cache outside the source tree, named and checked
// by hash, so that a second Build takes about a second and needs no network;
// any number of processes may share it, and it may be deleted at any time. The
// same sources and the same Go version give the same initramfs byte for byte,
// whatever the directory, the cache or the machine's GOFLAGS.
//
// The package boots nothing: that is the harness's work. Nor does it build
// kernels. Where there is no apt, or for a kernel of one's own, see
// [Options.Kernel]. It runs on Linux and needs the go command at run time.
package images

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// Options says where things are found, kept and told. The zero value works.
type Options struct {
	// Cache is the directory in which everything is kept. Empty means
	// "guesthouse" in [os.UserCacheDir].
	Cache string

	// Dir is the directory in which the guest's package path is resolved, and
	// whose module supplies the versions of guesthouse and u-root. Empty means
	// the current directory.
	Dir string

	// BuildFlags are given to "go build" for the guest program, after the ones
	// of this package: "-cover", "-tags=trace". GOFLAGS of the environment does
	// not count, save for -mod, -modfile and -overlay, which say where sources
	// are.
	BuildFlags []string

	// Kernel is a kernel file of the user's own, and Modules the directory with
	// its modules as the kernel's "make modules_install" or a distribution lays
	// it out (/lib/modules/RELEASE). They replace Debian's package, and then
	// apt is not needed. Kernel without Modules is for a kernel with all its
	// drivers built in.
	Kernel, Modules string

	// Files are further files of the initramfs: the absolute path in the guest
	// and the file on this machine. One that may be executed here may be there.
	Files map[string]string

	// Log receives one line for each step that takes long or that the user
	// ought to know of, each in one Write. Nil discards them.
	Log io.Writer

	// Progress, when it is a terminal, shows one line that is rewritten while
	// something is downloaded or compiled and erased after it. Anything else,
	// and nil, shows nothing.
	Progress *os.File
}

// An Image is what a machine of one target boots from. The paths are absolute;
// they stay valid for at least an hour after the Build that returned them.
type Image struct {
	Target string

	// Kernel and Initramfs are the paths of the two files, and KernelSHA256 and
	// InitramfsSHA256 their hashes in hexadecimal.
	Kernel, Initramfs             string
	KernelSHA256, InitramfsSHA256 string

	// Guest is the import path of the guest program.
	Guest string

	// Release is the kernel's release, as "uname -r" prints it in the guest. It
	// is empty for a kernel of the user's own without modules.
	Release string

	// KernelPackage and KernelVersion name the Debian package. They are empty
	// for a kernel of the user's own.
	KernelPackage, KernelVersion string
}

// Build returns the kernel and the initramfs for a target ("x86_64", "arm64")
// and a guest program, making what the cache does not hold. guestPkg is a
// package path as the go command takes it, of one main package: "./cmd/upper"
// or "guesthouse.example/guest/cmd/uinit".
//
// It fails with the error of the target table for an unknown target and with an
// [*Error] otherwise. When ctx ends it kills what it started and returns an
// error that wraps ctx's; the cache never holds half a file.
func Build(ctx context.Context, targetName, guestPkg string, o Options) (Image, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Image{}, err
	}
	// The kernel waits for the network while the programs need the processor.
	var kernel Kernel
	var parts programs
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		kernel, err = FetchKernel(gctx, targetName, o)
		return err
	})
	g.Go(func() (err error) {
		parts, err = buildPrograms(gctx, t, guestPkg, o)
		return err
	})
	if err := g.Wait(); err != nil {
		return Image{}, err
	}
	img := kernel.image()
	if info, err := buildinfo.Read(bytes.NewReader(parts.guest)); err == nil {
		img.Guest = info.Path
	}
	img.Initramfs, img.InitramfsSHA256, err = writeInitramfs(ctx, t, kernel, parts, o)
	if err != nil {
		return Image{}, err
	}
	return img, nil
}

// BuildInitramfs is the half of [Build] that makes the initramfs, for a kernel
// that is at hand. It returns the file's path and its SHA-256.
func BuildInitramfs(ctx context.Context, k Kernel, guestPkg string, o Options) (path, sum string, err error) {
	t, err := target.Lookup(k.Target)
	if err != nil {
		return "", "", err
	}
	parts, err := buildPrograms(ctx, t, guestPkg, o)
	if err != nil {
		return "", "", err
	}
	return writeInitramfs(ctx, t, k, parts, o)
}

// An Error says which step failed on what and why, and what can be done.
type Error struct {
	Step   string // "fetch kernel", "build guest"
	Object string // what it was done to: a target, a package path, a file
	Err    error
	Hint   string // what the user can do; may be empty
}

// Cause is the error without its hint: "step object: cause".
func (e *Error) Cause() string { return e.Step + " " + e.Object + ": " + e.Err.Error() }

// Error is the cause and, on a line of its own, the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Cause()
	}
	return e.Cause() + "\nhint: " + e.Hint
}

func (e *Error) Unwrap() error { return e.Err }

// fail returns an *Error, or err itself if it wraps one already.
func fail(step, object string, err error, hint string) error {
	if _, already := errors.AsType[*Error](err); already {
		return err
	}
	failed, _ := errors.AsType[*imagecache.Error](imagecache.Fail(step, object, err, hint))
	return (*Error)(failed)
}

func openCache(o Options) (*imagecache.Cache, error) {
	c, err := imagecache.Open(o.Cache)
	if err != nil {
		return nil, fail("open cache", o.Cache, err, "")
	}
	return c, nil
}

func hashBytes(b []byte) string {
	sum, _ := regular.Sum(bytes.NewReader(b)) // Reading memory does not fail.
	return sum
}
