package images

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/kernelfile"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
)

// gokrazyKernel is the name of the kernels that gokrazy publishes as Go modules. They are Linux, configured
// for the devices of QEMU too, with all of their drivers built in. The go command fetches them on any host.
const gokrazyKernel = "gokrazy"

// fetchGokrazy returns gokrazy's kernel of a target. Why is the end of the line that says what is fetched.
func fetchGokrazy(ctx context.Context, t target.Target, why string, o Options) (Kernel, error) {
	set, err := imagecache.Gokrazy(t.Name)
	if err != nil {
		return Kernel{}, err
	}
	if len(set) == 0 {
		return Kernel{}, fail("use kernel", gokrazyKernel, fmt.Errorf("gokrazy has no kernel for the target %s, only for %s",
			t.Name, strings.Join(gokrazyTargets(), " and ")), ownKernelHint)
	}
	return fetchModule(ctx, t, set, why, o)
}

// fetchModule returns the kernel in a Go module.
func fetchModule(ctx context.Context, t target.Target, set imagecache.KernelSet, why string, o Options) (Kernel, error) {
	return fetched(ctx, t, set, o, fetching{
		inputs: func(c *imagecache.Cache) []string {
			return []string{c.Path(imagecache.Kernels, set.Key(), imagecache.ManifestName)}
		},
		cached: func(c *imagecache.Cache) (imagecache.Kernel, error) { return c.OpenKernel(set, set) },
		fetch: func(ctx context.Context, c *imagecache.Cache, b *store.Build) (imagecache.KernelSet, error) {
			o.notice("%s: fetching %v (%s MB)%s", t.Name, set[0], megabytes(set.Size()), why)
			defer o.progress("kernel "+t.Name, growing(b.Path(moduleCache), 0))()
			archive, err := downloadModule(ctx, b, set[0])
			if err != nil {
				return nil, err
			}
			if err := unpackModule(archive, b, set); err != nil {
				return nil, fmt.Errorf("unpack %v: %w", set[0], err)
			}
			return set, b.Publish("kernel", c.Path(imagecache.Kernels, set.Key()))
		},
		unreachable: "check GOPROXY and the network, or " + ownKernelHint,
	})
}

func gokrazyTargets() (names []string) {
	for _, name := range target.Names() {
		if set, err := imagecache.Gokrazy(name); err == nil && len(set) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// moduleCache is the go command's module cache in the directory of a build. A module that turns out to be
// another one than the pinned one leaves nothing in the user's cache.
const moduleCache = "modcache"

// downloadModule downloads a module and returns its archive. The user's own module cache serves as a proxy.
// The checksum is pinned, so the go command has to ask no database of checksums.
func downloadModule(ctx context.Context, b *store.Build, m imagecache.Deb) (archive string, err error) {
	user, err := goSettings(ctx, b.Path(""))
	if err != nil {
		return "", err
	}
	env := append(os.Environ(), "GO111MODULE=on", "GOWORK=off", "GOSUMDB=off", "GOTOOLCHAIN=local",
		"GOFLAGS=-modcacherw", // so that the build's directory can be removed
		"GOMODCACHE="+b.Path(moduleCache), "GOPROXY=file://"+user.GOMODCACHE+"/cache/download,"+user.GOPROXY)
	var out bytes.Buffer
	var downloaded struct{ Zip, Error string }
	_, err = run(ctx, command{dir: b.Path(""), env: env, path: "go",
		args: []string{"mod", "download", "-json", m.Package + "@" + m.Version}, stdout: &out})
	// On failure, the go command says why in the JSON.
	if parsed := json.Unmarshal(out.Bytes(), &downloaded); err == nil {
		err = parsed
	}
	if downloaded.Error != "" {
		err = errors.New(downloaded.Error)
	}
	if err != nil {
		return "", fmt.Errorf("%v: %w", m, err)
	}
	sum, err := moduleSum(downloaded.Zip)
	if err != nil {
		return "", fmt.Errorf("%v: %w", m, err)
	}
	if sum != m.SHA256 {
		return "", &mismatchError{what: m.String(), want: m.SHA256, got: sum}
	}
	return downloaded.Zip, nil
}

// goSettings returns the user's settings of the go command for a directory outside of any module.
func goSettings(ctx context.Context, dir string) (s struct{ GOMODCACHE, GOPROXY string }, err error) {
	var out bytes.Buffer
	if _, err = run(ctx, command{dir: dir, path: "go", args: []string{"env", "-json", "GOMODCACHE", "GOPROXY"}, stdout: &out}); err != nil {
		return s, err
	}
	return s, json.Unmarshal(out.Bytes(), &s)
}

// moduleSum returns the checksum of a module's archive as go.sum has it, but in hexadecimal.
func moduleSum(archive string) (string, error) {
	sum, err := dirhash.HashZip(archive, dirhash.Hash1)
	if err != nil {
		return "", err
	}
	bytes, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:"))
	return hex.EncodeToString(bytes), err
}

// builtinList is a kernel's list of its built-in drivers in a module's archive, below the module's name.
var builtinList = regexp.MustCompile(`^lib/modules/[^/]+/modules\.builtin$`)

// unpackModule writes the kernel in a module's archive into the directory "kernel" of b. It leaves out the
// modules, because they may be those of another release, and no machine has a device for them.
func unpackModule(archive string, b *store.Build, set imagecache.KernelSet) error {
	if err := os.Mkdir(b.Path("kernel"), 0o777); err != nil {
		return err
	}
	r, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer r.Close()
	u := unpacker{dir: b.Path("kernel"), files: map[string]string{}}
	root := set[0].Package + "@" + set[0].Version + "/"
	for _, f := range r.File {
		name, to := strings.TrimPrefix(f.Name, root), ""
		switch {
		case name == imagecache.KernelName:
			to = imagecache.KernelName
		case builtinList.MatchString(name):
			to = "modules/modules.builtin"
		default:
			continue
		}
		file, err := f.Open()
		if err != nil {
			return err
		}
		err = errors.Join(u.write(to, file), file.Close())
		if err != nil {
			return err
		}
	}
	if len(u.files) != 2 {
		return fmt.Errorf("the module has %v instead of a kernel and the list of its drivers", slices.Sorted(maps.Keys(u.files)))
	}
	m := imagecache.Manifest{Debs: set, Files: u.files, Release: kernelfile.Release(filepath.Join(u.dir, imagecache.KernelName))}
	if m.Release == "" {
		return errors.New("the kernel's file does not name its release")
	}
	if err := indexModules(u.dir, &m); err != nil {
		return err
	}
	return m.Write(u.dir)
}
