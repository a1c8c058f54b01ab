package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
)

// setImage makes a Spec boot an image. If the image is a platform, the machine gets the program.
func setImage(spec *harness.Spec, i images.Image, program images.Executable) {
	spec.Kernel, spec.Initramfs, spec.Program = i.Kernel, i.Initramfs, program.Path
	spec.Origin = &harness.Origin{
		KernelSHA256: i.KernelSHA256, KernelPackage: strings.TrimSpace(i.KernelPackage + " " + i.KernelVersion),
		InitramfsSHA256: i.InitramfsSHA256, ProgramSHA256: program.SHA256, Guest: cmp.Or(i.Guest, program.Guest),
	}
}

// replay returns the Spec in a record's spec.json or in a bundle, with files that exist on this host.
func (f *imageFlags) replay(ctx context.Context, file string, log io.Writer) (harness.Spec, error) {
	is, err := isBundle(file)
	if err != nil {
		return harness.Spec{}, fmt.Errorf("spec: %w", err)
	}
	if is {
		return unpackBundle(ctx, file, f.options(log))
	}
	spec, err := harness.ReadSpec(file)
	if errors.As(err, new(*json.SyntaxError)) {
		return spec, fmt.Errorf("%w: name a spec.json or a bundle", err)
	}
	if err != nil {
		return spec, err
	}
	return f.find(ctx, spec, log)
}

// find returns the Spec with files that exist on this host and have the hashes of its Origin. It
// tries the files that the Spec names, then the cache. At last it fetches and builds them again.
func (f *imageFlags) find(ctx context.Context, spec harness.Spec, log io.Writer) (harness.Spec, error) {
	var of harness.Origin
	if spec.Origin != nil {
		of = *spec.Origin
	}
	is, err := hasSHA256(spec.Kernel, of.KernelSHA256)
	if err == nil && !is {
		spec.Kernel, err = f.findKernel(ctx, spec, of, log)
	}
	if err != nil {
		return spec, err
	}
	if spec.Loaders, err = f.findLoaders(spec.Loaders, of.LoaderSHA256); err != nil {
		return spec, err
	}
	if spec.Initramfs == "" {
		return spec, nil
	}
	is, err = hasSHA256(spec.Initramfs, of.InitramfsSHA256)
	if err == nil && !is {
		spec.Initramfs, err = f.findInitramfs(ctx, spec, of, log)
	}
	if err != nil || spec.Program == "" {
		return spec, err
	}
	is, err = hasSHA256(spec.Program, of.ProgramSHA256)
	if err == nil && !is {
		spec.Program, err = f.findProgram(ctx, spec, of, log)
	}
	return spec, err
}

// A missingError names a file of a Spec that this host does not have.
type missingError struct{ what, why string }

func (e *missingError) Error() string { return e.what + ": " + e.why }

const bundleHint = "on the host of the run, use guesthouse bundle RECORD; then give the bundle to run -spec"

func (f *imageFlags) findKernel(ctx context.Context, spec harness.Spec, of harness.Origin, log io.Writer) (string, error) {
	what := fmt.Sprintf("the kernel %s, %s", spec.Kernel, named(of.KernelSHA256))
	if of.KernelSHA256 == "" {
		return "", &missingError{what, "it is not here"}
	}
	cache, err := imagecache.Open(f.cache)
	if err != nil {
		return "", err
	}
	path, err := cache.FindKernel(of.KernelSHA256)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return path, err
	}
	if of.KernelPackage == "" {
		return "", &missingError{what, "no such file, and it is not in the cache"}
	}
	options := f.options(log)
	options.Kernel = "debian:" + strings.Replace(of.KernelPackage, " ", "=", 1)
	k, err := images.FetchKernel(ctx, spec.Target, options)
	if err != nil {
		return "", &missingError{what, fmt.Sprintf("no such file, it is not in the cache, and fetching %s failed: %v", of.KernelPackage, err)}
	}
	if k.SHA256 != of.KernelSHA256 {
		return "", &missingError{what, fmt.Sprintf("no such file, and it is not in the cache; apt's sources offer another file as %s", of.KernelPackage)}
	}
	return k.Path, nil
}

// findLoaders returns loaders with files that exist on this host. A bundle puts such files where kernels are.
func (f *imageFlags) findLoaders(all []harness.Loader, sums []string) ([]harness.Loader, error) {
	all = slices.Clone(all)
	for i := range all {
		sum := ""
		if i < len(sums) {
			sum = sums[i]
		}
		is, err := hasSHA256(all[i].File, sum)
		if err != nil {
			return nil, err
		}
		if is {
			continue
		}
		cache, err := imagecache.Open(f.cache)
		if err != nil {
			return nil, err
		}
		found, err := cache.FindKernel(sum)
		if err != nil {
			return nil, &missingError{fmt.Sprintf("the file %s of a loader, %s", all[i].File, named(sum)), "no such file, and it is not in the cache"}
		}
		all[i].File = found
	}
	return all, nil
}

func (f *imageFlags) findInitramfs(ctx context.Context, spec harness.Spec, of harness.Origin, log io.Writer) (string, error) {
	what := fmt.Sprintf("the initramfs %s, %s", spec.Initramfs, named(of.InitramfsSHA256))
	if of.InitramfsSHA256 == "" {
		return "", &missingError{what, "it is not here"}
	}
	cache, err := imagecache.Open(f.cache)
	if err != nil {
		return "", err
	}
	path, err := cache.FindInitramfs(of.InitramfsSHA256)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return path, err
	}
	var built images.Image
	sources := of.Guest
	switch {
	case spec.Program != "":
		sources = "guesthouse"
		built, err = images.Platform(ctx, spec.Target, f.options(log))
	case of.Guest == "":
		return "", &missingError{what, "no such file, it is not in the cache, and the record does not name the guest to build"}
	default:
		built, err = images.Build(ctx, spec.Target, of.Guest, f.options(log))
	}
	if err != nil {
		return "", &missingError{what, fmt.Sprintf("no such file, it is not in the cache, and building its guest again failed: %v", err)}
	}
	if built.InitramfsSHA256 != of.InitramfsSHA256 {
		return "", &missingError{what, otherSources(sources, "initramfs", built.InitramfsSHA256)}
	}
	return built.Initramfs, nil
}

func (f *imageFlags) findProgram(ctx context.Context, spec harness.Spec, of harness.Origin, log io.Writer) (string, error) {
	what := fmt.Sprintf("the program %s, %s", spec.Program, named(of.ProgramSHA256))
	if of.ProgramSHA256 == "" {
		return "", &missingError{what, "it is not here"}
	}
	cache, err := imagecache.Open(f.cache)
	if err != nil {
		return "", err
	}
	path, err := cache.FindProgram(of.ProgramSHA256)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return path, err
	}
	if of.Guest == "" {
		return "", &missingError{what, "no such file, it is not in the cache, and the record does not name its package"}
	}
	built, err := images.Program(ctx, spec.Target, of.Guest, f.options(log))
	if err != nil {
		return "", &missingError{what, fmt.Sprintf("no such file, it is not in the cache, and building it again failed: %v", err)}
	}
	if built.SHA256 != of.ProgramSHA256 {
		return "", &missingError{what, otherSources(of.Guest, "program", built.SHA256)}
	}
	return built.Path, nil
}

// otherSources says that a build has given another file than that of the record.
func otherSources(sources, file, sum string) string {
	return fmt.Sprintf("no such file, it is not in the cache, and the sources of %s on this host give another %s, %s: check out the sources of the run and use its version of Go",
		sources, file, named(sum))
}

func named(sum string) string {
	if sum == "" {
		return "of unknown SHA-256"
	}
	return "SHA-256 " + sum
}

// hasSHA256 reports whether a file exists and has the SHA-256 sum. An empty sum matches every file.
func hasSHA256(file, sum string) (bool, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return false, nil // the Spec comes from another host or user
	}
	if err != nil {
		return false, err
	}
	f.Close()
	if sum == "" {
		return true, nil
	}
	is, err := fileSHA256(file)
	return is == sum, err
}

func fileSHA256(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// baseName returns the name of a record's directory, also for a path such as ".".
func baseName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return filepath.Base(dir)
}
