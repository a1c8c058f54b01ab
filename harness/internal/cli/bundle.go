package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
)

const bundleUsage = `guesthouse bundle [flags] RECORD

Packs the record directory of a run, its kernel, its initramfs, its program and the files of
its loaders into one file. On another
host, "guesthouse run -spec FILE" boots that machine without a network, a cache or the guest's
sources. The file is a tar archive, compressed with zstd. The same record always gives the same
bytes. RECORD is the directory that the run named with -dir, or the one that a failed run kept.`

// A bundle begins with spec.json, the kernel, the initramfs, the program and the files of the loaders, because
// run reads only these.
// The other files of the record follow. spec.json names these files as below.
const (
	bundledKernel    = "kernel"
	bundledInitramfs = "initramfs"
	bundledProgram   = "program"
	maxSpec          = 1 << 20 // bytes of a bundle's spec.json
	maxImage         = 4 << 30 // bytes of a bundle's kernel, initramfs, program or file of a loader
)

// bundledLoader returns the name of the file of a loader.
func bundledLoader(i int) string { return fmt.Sprint("loader", i) }

func bundleCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("bundle", flag.ContinueOnError)
	var f imageFlags
	out := flags.String("o", "", "the `file` to write (default: the record's name with .tar.zst, in the current directory)")
	flags.StringVar(&f.cache, "cache", "", cacheUsage)
	if err := parse(flags, args, std, bundleUsage); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("bundle: want one record directory, got %d arguments (%w; see -h)", flags.NArg(), errUsage)
	}
	dir := flags.Arg(0)
	spec, err := harness.ReadSpec(filepath.Join(dir, records.SpecFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("bundle %s: no %s in it: name the record directory of a run", dir, records.SpecFile)
	}
	if err != nil {
		return fmt.Errorf("bundle %s: %w", dir, err)
	}
	if spec, err = f.find(ctx, spec, std.err); err != nil {
		return fmt.Errorf("bundle %s: %w", dir, err)
	}
	file := *out
	if file == "" {
		file = baseName(dir) + ".tar.zst"
	}
	if err := writeBundle(file, dir, spec); err != nil {
		return fmt.Errorf("bundle %s: %w", dir, err)
	}
	if what := notBundled(spec); what != "" {
		fmt.Fprintf(std.err, "guesthouse: note: the run had %s, which is not in the bundle, so run -spec refuses the bundle: there, %s\n", what, unpackHint)
	}
	_, err = fmt.Fprintln(std.out, file)
	return err
}

// writeBundle writes the whole file or, if it fails, no file.
func writeBundle(file, dir string, spec harness.Spec) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing after the rename
	defer f.Close()
	// The bytes must not depend on the number of processors.
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if err := packRecord(t, dir, spec); err != nil {
		return err
	}
	if err := errors.Join(t.Close(), z.Close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func packRecord(t *tar.Writer, dir string, spec harness.Spec) error {
	kernel, initramfs, program := spec.Kernel, spec.Initramfs, spec.Program
	of := harness.Origin{}
	if spec.Origin != nil {
		of = *spec.Origin
	}
	var err error
	if of.KernelSHA256, err = fileSHA256(kernel); err != nil {
		return err
	}
	spec.Kernel, spec.Origin = bundledKernel, &of
	if isUsualQEMU(spec) {
		spec.QEMU = ""
	}
	if initramfs != "" {
		if of.InitramfsSHA256, err = fileSHA256(initramfs); err != nil {
			return err
		}
		spec.Initramfs = bundledInitramfs
	}
	if program != "" {
		if of.ProgramSHA256, err = fileSHA256(program); err != nil {
			return err
		}
		spec.Program = bundledProgram
	}
	loaders := spec.Loaders
	spec.Loaders, of.LoaderSHA256 = slices.Clone(loaders), nil
	for i, l := range loaders {
		sum, err := fileSHA256(l.File)
		if err != nil {
			return err
		}
		spec.Loaders[i].File, of.LoaderSHA256 = bundledLoader(i), append(of.LoaderSHA256, sum)
	}
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := pack(t, records.SpecFile, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	if err := packFile(t, bundledKernel, kernel); err != nil {
		return err
	}
	if initramfs != "" {
		if err := packFile(t, bundledInitramfs, initramfs); err != nil {
			return err
		}
	}
	if program != "" {
		if err := packFile(t, bundledProgram, program); err != nil {
			return err
		}
	}
	for i, l := range loaders {
		if err := packFile(t, bundledLoader(i), l.File); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(slices.Values(records.Files)) {
		if name == records.SpecFile {
			continue
		}
		err := packFile(t, name, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func packFile(t *tar.Writer, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", file)
	}
	return pack(t, name, info.Size(), f)
}

// pack adds a file of size bytes. If the file has grown since its size was read, r holds more.
func pack(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.CopyN(t, r, size)
	return err
}

// isBundle reports whether a file is compressed with zstd, as every bundle is.
func isBundle(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && n > 0 || errors.Is(err, io.EOF) {
		err = nil // the file is too short for a bundle
	}
	return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), err
}

// unpackBundle puts a bundle's kernel, initramfs and program into the cache and returns a Spec that boots
// them. It writes nothing else and uses no file name of the bundle, because a bundle may be hostile.
func unpackBundle(ctx context.Context, file string, o images.Options) (spec harness.Spec, err error) {
	defer func() {
		var image *imagecache.Error
		switch {
		case err == nil:
			return
		case errors.As(err, &image): // the user does not know of the step that the error names
			err = fmt.Errorf("%s: %w", image.Object, image.Err)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the file is truncated: copy it again: %w", err)
		}
		err = fmt.Errorf("bundle %s: %w", file, err)
	}()
	f, err := os.Open(file)
	if err != nil {
		return spec, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return spec, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	next := func(name string, limit int64) error {
		h, err := t.Next()
		switch {
		case err == io.EOF:
			return fmt.Errorf("%s is missing: %w", name, io.ErrUnexpectedEOF)
		case err != nil:
			return err
		case h.Name != name || h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%q is in the place of %s: this file is not the bundle of a record", h.Name, name)
		case h.Size > limit:
			return fmt.Errorf("%s has %d bytes: the limit is %d", name, h.Size, limit)
		}
		return nil
	}
	if err := next(records.SpecFile, maxSpec); err != nil {
		return spec, err
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return spec, err
	}
	if spec, err = harness.DecodeSpec(text); err != nil {
		return spec, fmt.Errorf("%s: %v", records.SpecFile, err) // io.ErrUnexpectedEOF would mean a truncated bundle
	}
	if err := checkBundled(spec); err != nil {
		return spec, err
	}
	if spec.Kernel != bundledKernel || spec.Initramfs != "" && spec.Initramfs != bundledInitramfs ||
		spec.Program != "" && spec.Program != bundledProgram || spec.Origin == nil || !hasBundledLoaders(spec) {
		return spec, fmt.Errorf("%s: it does not name the files of the bundle: this file is not the bundle of a record", records.SpecFile)
	}
	if out := spec.Outbound; out != "" && out != harness.OutboundNone {
		spec.Outbound = harness.OutboundNone
		if o.Log != nil {
			fmt.Fprintf(o.Log, "guesthouse: the recorded run had -outbound %[1]s, and this run has none: give -outbound %[1]s to allow the guest the same\n", out)
		}
	}
	cache, err := imagecache.Open(o.Cache)
	if err != nil {
		return spec, err
	}
	if err := next(bundledKernel, maxImage); err != nil {
		return spec, err
	}
	if spec.Kernel, err = cache.ImportKernel(ctx, spec.Origin.KernelSHA256, t); err != nil {
		return spec, err
	}
	if spec.Initramfs != "" {
		if err := next(bundledInitramfs, maxImage); err != nil {
			return spec, err
		}
		if spec.Initramfs, err = cache.ImportInitramfs(ctx, spec.Origin.InitramfsSHA256, t); err != nil {
			return spec, err
		}
	}
	if spec.Program != "" {
		if err := next(bundledProgram, maxImage); err != nil {
			return spec, err
		}
		if spec.Program, err = cache.ImportProgram(ctx, spec.Origin.ProgramSHA256, t); err != nil {
			return spec, err
		}
	}
	for i := range spec.Loaders {
		if err := next(bundledLoader(i), maxImage); err != nil {
			return spec, err
		}
		if spec.Loaders[i].File, err = cache.ImportKernel(ctx, spec.Origin.LoaderSHA256[i], t); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

// hasBundledLoaders reports whether the loaders of a Spec have the files of a bundle.
func hasBundledLoaders(spec harness.Spec) bool {
	for i, l := range spec.Loaders {
		if l.File != bundledLoader(i) {
			return false
		}
	}
	return len(spec.Loaders) == len(spec.Origin.LoaderSHA256)
}
