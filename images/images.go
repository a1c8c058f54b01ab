// Package images turns the name of a target and a Go package into the two
// files a machine boots from: a kernel and an initramfs.
//
// The kernel is a stock Debian package. This package fetches it from the apt
// sources of the host, with apt's own signature checks, for any architecture,
// without root and without a change of the system. The initramfs holds an init,
// u-root's shell and commands, the kernel modules that drive the target's
// devices, and the guest program as /bin/uinit, which init starts.
//
//	img, err := images.Build(ctx, "arm64", "./cmd/upper", images.Options{Log: os.Stderr})
//
// A cache outside the source tree keeps what was made, named and checked by
// hash: a second Build takes about a second and needs no network. Any number of
// processes may share the cache, and it may be deleted at any time. The same
// sources and the same version of Go give the same initramfs byte for byte,
// whatever the directory, the cache or GOFLAGS.
//
// The package does not boot machines, as package harness does, and it does not
// build kernels. On a host without apt, or for a kernel of your own, set
// [Options.Kernel]. The package runs on Linux and needs the go command at run
// time.
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

// Options are the options of a build. The zero value is ready to use.
type Options struct {
	// Cache is the directory that keeps what was made. If it is empty, that is
	// "guesthouse" in [os.UserCacheDir].
	Cache string

	// Dir is the directory in which the go command resolves the guest's package
	// path. Its module decides the version of guesthouse, and with that the
	// version of u-root. If Dir is empty, that is the current directory.
	Dir string

	// BuildFlags are more flags of "go build" for the guest program, such as
	// "-cover" or "-tags=trace". Of the environment's GOFLAGS only -mod,
	// -modfile and -overlay count, because they say where sources are.
	BuildFlags []string

	// Kernel is the file of a kernel of your own, which replaces Debian's
	// package: then no apt is needed. Modules is the directory of its modules,
	// in the layout of /lib/modules/RELEASE on a distribution and of the
	// kernel's "make modules_install". It is empty for a kernel that has all
	// drivers built in.
	Kernel, Modules string

	// Files adds files to the initramfs. It maps absolute paths in the guest to
	// files of the host. A file that is executable on the host is executable in
	// the guest.
	Files map[string]string

	// Log receives one line, in one Write, for each step that takes long or
	// that the user should know of. If it is nil, the lines are discarded.
	Log io.Writer

	// Progress is a terminal that shows a progress line during a download or a
	// compilation. If it is nil or no terminal, no progress is shown.
	Progress *os.File
}

// An Image is the files that a machine of one target boots from. The paths are
// absolute. They stay valid for at least an hour after Build has returned them.
type Image struct {
	Target string

	// Kernel and Initramfs are the paths of the two files, and KernelSHA256 and
	// InitramfsSHA256 their hashes in hexadecimal.
	Kernel, Initramfs             string
	KernelSHA256, InitramfsSHA256 string

	// Guest is the import path of the guest program.
	Guest string

	// Release is the kernel's release, as "uname -r" prints it in the guest. It
	// is empty for a kernel of your own without modules.
	Release string

	// KernelPackage and KernelVersion name the Debian package. They are empty
	// for a kernel of your own.
	KernelPackage, KernelVersion string
}

// Build returns the kernel and the initramfs for a target, such as "x86_64" or
// "arm64", and a guest program. It makes what the cache does not hold. guestPkg
// is the path of one main package, as the go command takes it: "./cmd/upper" or
// "guesthouse.example/guest/cmd/uinit".
//
// The error of an unknown target lists the targets; every other error is an
// [*Error]. When ctx ends, Build kills the programs that it has started and
// returns an error that wraps the cause of ctx. The cache never holds half a
// file.
func Build(ctx context.Context, targetName, guestPkg string, o Options) (Image, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Image{}, err
	}
	// The download of the kernel waits for the network, and the compiler needs the processor.
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

// BuildInitramfs makes the initramfs as [Build] does, for a kernel that the
// caller has. It returns the path and the SHA-256 of the file.
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

// An Error says which step failed on what and why, and what the user can do.
type Error struct {
	Step   string // "fetch kernel", "build guest"
	Object string // what it was done to: a target, a package path, a file
	Err    error
	Hint   string // what the user can do; may be empty
}

// Cause returns the error without its hint: "step object: cause".
func (e *Error) Cause() string { return e.Step + " " + e.Object + ": " + e.Err.Error() }

// Error returns the cause and, on a line of its own, the hint.
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
