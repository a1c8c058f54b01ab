// Package images makes the two files that a machine boots from, a kernel and an
// initramfs, for a target and a guest program, which is a Go package. The guest
// program is part of the initramfs ([Build]) or a file of its own ([Program]), which
// the harness delivers into a machine without one ([Platform]).
//
// The kernel is a stock Debian package. This package fetches it from the apt
// sources of the host, with apt's own signature checks, for any architecture,
// without root and without a change of the system. On a host without apt, the
// kernel for x86_64 and arm64 is that of a Go module. The initramfs holds an init,
// u-root's shell and commands, the kernel modules that drive the target's
// devices, and the guest program as /bin/uinit, which init starts.
//
//	img, err := images.Build(ctx, "arm64", "./cmd/upper", images.Options{Log: os.Stderr})
//
// A cache outside the source tree keeps the files, and names and checks them by
// their hashes: a second Build needs no network. If no file has changed that the
// first one read, it takes about ten milliseconds and does not run the go command.
// Any number of processes may share the cache, and users may delete it at any time.
// The same sources and the same version of Go give the same initramfs byte for
// byte, whatever the directory, the cache or GOFLAGS.
//
// The package does not boot machines; package harness does. It does not build
// kernels. For another kernel set [Options.Kernel].
// The package runs on Linux and needs the go command at run time.
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
	// Cache is the directory of the cache. The empty string means "guesthouse"
	// in [os.UserCacheDir].
	Cache string

	// Dir is the directory in which the go command resolves the guest's package
	// path. The directory's module decides the version of guesthouse, and so the
	// version of u-root. The empty string means the current directory.
	Dir string

	// BuildFlags are further flags of "go build" for the guest program, such as
	// "-cover" or "-tags=trace". Build ignores the environment's GOFLAGS except
	// for -mod, -modfile and -overlay, which say where the sources are.
	BuildFlags []string

	// Kernel names the kernel. "debian" is the Debian kernel with which guesthouse
	// was tested. "debian:PACKAGE" is the newest version of any linux-image package
	// that apt offers for the target's architecture, and "debian:PACKAGE=VERSION" is
	// that version. "gokrazy", for x86_64 and arm64, is the kernel of a Go module of
	// gokrazy, which the go command fetches. "host" is the kernel that this host
	// runs, with the modules in /lib/modules. Any other name is the path of a file,
	// or of a directory with a kernel and its modules in lib/modules, such as an
	// unpacked package or a Go module that holds a kernel. Build needs apt only for
	// "debian" and "debian:PACKAGE".
	//
	// The empty string means "debian". On a host without apt whose cache lacks that
	// kernel it means "gokrazy".
	Kernel string

	// Modules is the directory of the modules of the kernel file that Kernel names,
	// with the layout of /lib/modules/RELEASE, as the kernel's "make
	// modules_install" writes it. It is empty for a kernel with all drivers built
	// in.
	Modules string

	// Files adds files to the initramfs. It maps absolute paths in the guest to
	// files of the host. A file that is executable on the host is executable in
	// the guest.
	Files map[string]string

	// Log receives one line, in one Write, for each step that takes long or
	// that the user should know about. Nil discards the lines.
	Log io.Writer

	// Progress is a terminal that shows a progress line during a download or a
	// compilation. If it is nil or not a terminal, Build shows no progress.
	Progress *os.File

	// Compiling is called by [PlatformAndProgram] with the platform while the guest program
	// is compiled, so that the caller can use that time. It is not called if the cache has
	// the program. It may be nil.
	Compiling func(platform Image)

	inputs  *inputs // what the result depends on; may be nil
	missing func()  // called if the cache does not have the result; may be nil
}

// An Image names the files that a machine of one target boots from. The paths are
// absolute. They stay valid for at least an hour after Build has returned them.
type Image struct {
	Target string

	// Kernel and Initramfs are the paths of the two files, and KernelSHA256 and
	// InitramfsSHA256 their hashes in hexadecimal.
	Kernel, Initramfs             string
	KernelSHA256, InitramfsSHA256 string

	// Guest is the import path of the guest program. It is empty for a platform.
	Guest string

	// Modules is the directory of all modules of the kernel, in the layout of
	// /lib/modules/RELEASE. The initramfs has only those that drive the machine's
	// devices. It is empty for your own kernel without modules.
	Modules string

	// Release is the kernel's release, as "uname -r" prints it in the guest. It
	// is empty for your own kernel without modules.
	Release string

	// KernelPackage and KernelVersion name the Debian package or gokrazy's module.
	// They are empty for your own kernel.
	KernelPackage, KernelVersion string

	// Inputs are the files whose change makes another image, present or not: sources,
	// settings, a choice of kernel. They are empty if the image depends on more.
	Inputs []string `json:"-"`
}

// Build returns the kernel and the initramfs for a target, such as "x86_64" or
// "arm64", and a guest program. It fetches or builds what the cache does not hold.
// guestPkg is the path of one main package, as the go command accepts it:
// "./cmd/upper" or "guesthouse.example/guest/cmd/uinit".
//
// The error for an unknown target lists the targets. Every other error is an
// [*Error]. When ctx ends, Build kills the programs that it has started and
// returns an error that wraps the cause of ctx. The cache never holds a partial
// file.
func Build(ctx context.Context, targetName, guestPkg string, o Options) (Image, error) {
	if guestPkg == "" {
		return Image{}, fail("build guest", targetName, errors.New("no package"), "name the package with the guest's func main")
	}
	return build(ctx, targetName, guestPkg, o)
}

// Platform returns the kernel and the initramfs of a platform: a machine without a
// guest program, into which the harness delivers one. The machine's init brings the
// network up and waits for the program. Otherwise Platform is like [Build].
func Platform(ctx context.Context, targetName string, o Options) (Image, error) {
	return build(ctx, targetName, "", o)
}

func build(ctx context.Context, targetName, guestPkg string, o Options) (Image, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Image{}, err
	}
	things := []string{guestPkg}
	if guestPkg != "" {
		things = append(things, o.BuildFlags...)
	}
	return stamped(ctx, t, o, "image", things, func(o Options) (Image, error) {
		return buildImage(ctx, t, guestPkg, o)
	})
}

func buildImage(ctx context.Context, t target.Target, guestPkg string, o Options) (Image, error) {
	// The download waits for the network while the compiler uses the processor.
	var kernel Kernel
	var parts programs
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		kernel, err = FetchKernel(gctx, t.Name, o)
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
	img.Guest = mainPackage(parts.guest)
	var err error
	img.Initramfs, img.InitramfsSHA256, err = writeInitramfs(ctx, t, kernel, parts, o)
	if err != nil {
		return Image{}, err
	}
	return img, nil
}

// mainPackage returns the import path of a program's main package, or "" if it is unknown.
func mainPackage(program []byte) string {
	if info, err := buildinfo.Read(bytes.NewReader(program)); err == nil {
		return info.Path
	}
	return ""
}

// An Executable is a guest program that is compiled for a target.
type Executable struct {
	Target string

	// Path is the absolute path of the program, and SHA256 its hash in hexadecimal. The
	// path stays valid for at least an hour after Program has returned it.
	Path, SHA256 string

	// Guest is the import path of the program's main package.
	Guest string
}

// Program compiles a guest program for a target, for delivery into the machine of a
// [Platform]. It is the same program that [Build] packs into an initramfs.
func Program(ctx context.Context, targetName, guestPkg string, o Options) (Executable, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Executable{}, err
	}
	return stamped(ctx, t, o, "program", append([]string{guestPkg}, o.BuildFlags...), func(o Options) (Executable, error) {
		return buildProgram(ctx, t, guestPkg, o)
	})
}

func buildProgram(ctx context.Context, t target.Target, guestPkg string, o Options) (Executable, error) {
	c, err := openCache(o)
	if err != nil {
		return Executable{}, err
	}
	data, err := buildGuest(ctx, c, t, guestPkg, o)
	if err != nil {
		return Executable{}, err
	}
	e := Executable{Target: t.Name, Guest: mainPackage(data)}
	if e.Path, e.SHA256, err = c.Put(ctx, imagecache.Programs, data); err != nil {
		return Executable{}, fail("write guest", guestPkg, err, "")
	}
	return e, nil
}

// PlatformAndProgram calls [Platform] and [Program] at the same time. With a kernel file of your own without
// [Options.Modules], it calls [Build] instead and returns no program, because that kernel may lack
// virtio_console, the driver of the port over which a program is delivered.
func PlatformAndProgram(ctx context.Context, targetName, guestPkg string, o Options) (Image, Executable, error) {
	if info, err := os.Stat(o.Kernel); err == nil && info.Mode().IsRegular() && o.Modules == "" {
		image, err := Build(ctx, targetName, guestPkg, o)
		return image, Executable{}, err
	}
	var platform Image
	var program Executable
	g, ctx := errgroup.WithContext(ctx)
	compiles, compiled := make(chan struct{}), make(chan struct{})
	g.Go(func() (err error) {
		if platform, err = Platform(ctx, targetName, o); err != nil || o.Compiling == nil {
			return err
		}
		select {
		case <-compiled: // or the cache had it
		case <-compiles:
			o.Compiling(platform)
		}
		return nil
	})
	g.Go(func() (err error) {
		defer close(compiled)
		o := o
		o.missing = func() { close(compiles) }
		program, err = Program(ctx, targetName, guestPkg, o)
		return err
	})
	err := g.Wait()
	return platform, program, err
}

// BuildInitramfs builds the initramfs as [Build] does, for the kernel k. It returns
// the path of the initramfs and its SHA-256 in hexadecimal.
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

// An Error says which step failed, on which object, why, and what the user can do.
type Error struct {
	Step   string // "fetch kernel", "build guest"
	Object string // the object of the step: a target, a package path, a file
	Err    error
	Hint   string // what the user can do; may be empty
}

// Cause returns the error without its hint: "step object: cause".
func (e *Error) Cause() string { return (*imagecache.Error)(e).Cause() }

// Error returns the cause and, on a line of its own, the hint.
func (e *Error) Error() string { return (*imagecache.Error)(e).Error() }

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
