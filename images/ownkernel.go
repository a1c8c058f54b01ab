package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/kernelfile"
	"guesthouse.example/internal/target"
)

// ownKernel returns the kernel in the user's file, with the modules in the user's directory.
func ownKernel(t target.Target, o Options) (Kernel, error) {
	k, err := kernelIn(t, o.Kernel, o)
	if err != nil || o.Modules == "" {
		return k, err
	}
	if err := k.addModules(o.Modules, o); err != nil {
		return Kernel{}, fail("use modules", o.Modules, err, "name the directory of the kernel's modules, such as /lib/modules/RELEASE")
	}
	return k, nil
}

// kernelIn returns the kernel in a file, without modules.
func kernelIn(t target.Target, file string, o Options) (Kernel, error) {
	const step = "use kernel"
	path, err := filepath.Abs(file)
	if err != nil {
		return Kernel{}, fail(step, file, err, "")
	}
	o.inputs.depends(path)
	k := Kernel{Target: t.Name, Path: path}
	if k.SHA256, err = imagecache.HashFile(path); err != nil {
		return Kernel{}, fail(step, file, err, "name the kernel's file: vmlinuz, bzImage or Image, or a directory with it and lib/modules")
	}
	if err := kernelfile.Check(path, t); err != nil {
		return Kernel{}, fail(step, t.Name, err, "")
	}
	k.Release = kernelfile.Release(path)
	return k, nil
}

// addModules adds the modules in a directory.
func (k *Kernel) addModules(dir string, o Options) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	o.inputs.depends(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	modules, err := readTree(dir, nil, o.inputs)
	if err != nil {
		return err
	}
	release, err := modules.release()
	if err != nil {
		return err
	}
	k.Modules = dir
	if k.Release == "" {
		k.Release = release
	}
	return nil
}

// Where a directory may have a kernel: at its top, as a Go module such as gokrazy's has it, in boot or
// beside the modules, as packages have it, or where the kernel's build leaves it. The kernel's own build
// also leaves vmlinux at the top, which is far larger than the kernel that it packs.
var kernelGlobs = []string{
	"vmlinuz", "vmlinuz-*", "bzImage", "Image", "Image.gz", "zImage",
	"boot/vmlinuz-*", "boot/vmlinux-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz",
	"arch/*/boot/bzImage", "arch/*/boot/zImage", "arch/*/boot/Image",
}

// directoryKernel returns the kernel in a directory, with the modules in the same directory.
func directoryKernel(t target.Target, dir string, o Options) (Kernel, error) {
	const step = "use kernel"
	var found []Kernel
	var other error
	seen := map[string]bool{}
	for _, glob := range kernelGlobs {
		parents, _ := filepath.Glob(filepath.Join(quoteGlob(dir), filepath.Dir(glob)))
		o.inputs.depends(parents...)
		files, _ := filepath.Glob(filepath.Join(quoteGlob(dir), glob))
		for _, file := range files {
			// A link may give a kernel a second name.
			real, err := filepath.EvalSymlinks(file)
			if err != nil || seen[real] {
				continue
			}
			seen[real] = true
			k, err := kernelIn(t, real, o)
			if err != nil {
				other = err
				continue
			}
			if k.Release == "" {
				k.Release = releaseInName(real)
			}
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0 && other != nil:
		return Kernel{}, other
	case len(found) == 0:
		return Kernel{}, fail(step, dir, errors.New("the directory has no kernel"), "it needs one of "+strings.Join(kernelGlobs, ", "))
	case len(found) > 1:
		var files []string
		for _, k := range found {
			files = append(files, k.Path)
		}
		return Kernel{}, fail(step, dir, fmt.Errorf("the directory has several kernels: %s", strings.Join(files, ", ")),
			"name the file of one of them, and its modules with -modules DIR or Options.Modules")
	}
	k := found[0]
	modules, err := modulesIn(dir, k.Release, o.inputs)
	if err == nil && modules != "" {
		err = k.addModules(modules, o)
	}
	if err != nil {
		return Kernel{}, fail(step, dir, err, "")
	}
	return k, nil
}

// releaseInName returns the release of a kernel that is named as packages name it, or "".
func releaseInName(file string) string {
	if _, release, ok := strings.Cut(filepath.Base(file), "vmlinuz-"); ok {
		return release
	}
	if dir := filepath.Dir(file); filepath.Base(filepath.Dir(dir)) == "modules" {
		return filepath.Base(dir)
	}
	return ""
}

// modulesIn returns the directory of the modules of a release, or the only directory of modules, or "" if
// there is none. The tree of the kernel's own build has its modules everywhere.
func modulesIn(dir, release string, in *inputs) (string, error) {
	var all []string
	for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
		in.depends(filepath.Join(dir, lib))
		entries, err := os.ReadDir(filepath.Join(dir, lib))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, e := range entries {
			path := filepath.Join(dir, lib, e.Name())
			if e.Name() == release {
				return path, nil
			}
			all = append(all, path)
		}
	}
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1:
		return "", fmt.Errorf("the kernel is %s, but the modules are in %s", release, strings.Join(all, ", "))
	}
	if _, err := os.Stat(filepath.Join(dir, "modules.order")); err == nil {
		return dir, nil
	}
	return "", nil
}

// quoteGlob returns a pattern that matches exactly a path.
func quoteGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// hostRelease returns the release of the kernel that this host runs.
func hostRelease() (string, error) {
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(host.Release[:]), nil
}

// runningKernel returns the kernel that this host runs, with its modules.
func runningKernel(t target.Target, o Options) (Kernel, error) {
	const step = "use the host's kernel"
	if t.GOARCH != runtime.GOARCH {
		return Kernel{}, fail(step, t.Name, fmt.Errorf("this host is %s, and the target is %s", runtime.GOARCH, t.GOARCH),
			"use the target of this host, or another kernel")
	}
	release, err := hostRelease()
	if err != nil {
		return Kernel{}, fail(step, t.Name, err, "")
	}
	return installedKernel(t, "/", release, o)
}

// installedKernel returns the kernel of a release that is installed in a root directory.
func installedKernel(t target.Target, root, release string, o Options) (Kernel, error) {
	const step = "use the host's kernel"
	files := []string{"boot/vmlinuz-" + release, "lib/modules/" + release + "/vmlinuz", "boot/Image-" + release}
	i := slices.IndexFunc(files, func(f string) bool {
		o.inputs.depends(filepath.Join(root, f))
		_, err := os.Lstat(filepath.Join(root, f))
		return err == nil
	})
	if i < 0 {
		for j := range files {
			files[j] = filepath.Join(root, files[j])
		}
		return Kernel{}, fail(step, release, fmt.Errorf("the host has no %s", strings.Join(files, ", ")),
			"a container or a machine whose kernel comes from elsewhere has no kernel file: use debian:PACKAGE, or name a file")
	}
	file := filepath.Join(root, files[i])
	k, err := kernelIn(t, file, o)
	if errors.Is(err, fs.ErrPermission) {
		return Kernel{}, fail(step, release, errors.Unwrap(err), "some distributions make the kernel readable only for root: run sudo chmod +r "+file)
	}
	if err != nil {
		return Kernel{}, err
	}
	if k.Release == "" {
		k.Release = release
	}
	modules, err := modulesIn(root, release, o.inputs)
	if err == nil && filepath.Base(modules) != release {
		modules = "" // those of another kernel
	}
	if err == nil && modules != "" {
		err = k.addModules(modules, o)
	}
	if err != nil {
		return Kernel{}, fail(step, release, err, "")
	}
	return k, nil
}
