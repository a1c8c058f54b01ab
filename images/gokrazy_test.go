package images

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	xmodule "golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
)

const (
	kernelModule  = "kernel.example/kernel.fake"
	moduleVersion = "v0.0.0-20260705071517-37841c4d6ff1"
)

// publishKernel makes a module proxy with a module of files, and lets the go command use only it. It returns
// what pins the module.
func publishKernel(t *testing.T, files map[string][]byte) imagecache.KernelSet {
	t.Helper()
	const mod = "module " + kernelModule + "\n"
	proxy := t.TempDir()
	dir := filepath.Join(proxy, kernelModule, "@v")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, moduleVersion+".mod"), []byte(mod), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, moduleVersion+".info"), fmt.Appendf(nil, "{%q: %q}", "Version", moduleVersion), 0o666))
	archive, err := os.Create(filepath.Join(dir, moduleVersion+".zip"))
	require.NoError(t, err)
	tree := map[string][]byte{"go.mod": []byte(mod)}
	for name, data := range files {
		tree[name] = data
	}
	require.NoError(t, zip.CreateFromDir(archive, xmodule.Version{Path: kernelModule, Version: moduleVersion}, withFiles(t, tree)))
	require.NoError(t, archive.Close())
	t.Setenv("GOPROXY", "file://"+proxy)
	sum, err := moduleSum(archive.Name())
	require.NoError(t, err)
	return imagecache.KernelSet{{Package: kernelModule, Version: moduleVersion, SHA256: sum, Size: 16_500_000}}
}

// gokrazysFiles are the files of a module whose kernel has another release than the directory of its modules.
func gokrazysFiles() map[string][]byte {
	return map[string][]byte{
		"vmlinuz":                                            bzImage("7.1.2"),
		"lib/modules/7.1.3/modules.builtin":                  []byte("kernel/drivers/net/virtio_net.ko\n"),
		"lib/modules/7.1.3/modules.dep":                      []byte("kernel/drivers/xen/xen-gntdev.ko:\n"),
		"lib/modules/7.1.3/kernel/drivers/xen/xen-gntdev.ko": fakeModule(""),
		"kernel.go":                                          []byte("package kernel\n"),
	}
}

func TestAKernelInAGoModule(t *testing.T) {
	set := publishKernel(t, gokrazysFiles())
	var log bytes.Buffer
	o := Options{Cache: t.TempDir(), Log: &log}
	k, err := fetchModule(t.Context(), fakeTarget, set, ", because", o)
	require.NoError(t, err)
	require.Equal(t, "guesthouse: fake: fetching "+kernelModule+" "+moduleVersion+" (16.5 MB), because\n", log.String())
	require.Equal(t, "7.1.2", k.Release, "the kernel's own, and not that of the directory")
	require.Equal(t, kernelModule, k.Package)
	require.Equal(t, moduleVersion, k.Version)
	require.True(t, k.Tested)
	file, err := os.ReadFile(k.Path)
	require.NoError(t, err)
	require.Equal(t, bzImage("7.1.2"), file)
	require.FileExists(t, filepath.Join(k.Modules, "modules.builtin"))
	dep, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	require.NoError(t, err)
	require.Empty(t, dep, "no module is taken")
	require.NoDirExists(t, filepath.Join(k.Modules, "kernel"))
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))

	// The go command and the proxy are needed only once.
	t.Setenv("GOPROXY", "off")
	noApt(t)
	again, err := fetchModule(t.Context(), fakeTarget, set, "", o)
	require.NoError(t, err)
	require.Equal(t, k, again)
}

// The module is downloaded into a cache of its own, so nothing is left in the user's module cache.
func TestAKernelInAGoModuleIsChecked(t *testing.T) {
	set := publishKernel(t, gokrazysFiles())
	user := t.TempDir()
	t.Setenv("GOMODCACHE", user)
	o := Options{Cache: t.TempDir()}
	other := imagecache.KernelSet{set[0]}
	other[0].SHA256 = strings.Repeat("a", 64)
	_, err := fetchModule(t.Context(), fakeTarget, other, "", o)
	require.ErrorContains(t, err, "fetch kernel fake: "+kernelModule+" "+moduleVersion+": its SHA-256 is "+set[0].SHA256+", not aaaa")
	require.ErrorContains(t, err, "guesthouse has not kept the file")
	requireEmpty(t, filepath.Join(o.Cache, "kernels"))
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))
	requireEmpty(t, user)

	// A damaged kernel is fetched again.
	k, err := fetchModule(t.Context(), fakeTarget, set, "", o)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(k.Path, []byte("damaged"), 0o666))
	var log bytes.Buffer
	o.Log = &log
	again, err := fetchModule(t.Context(), fakeTarget, set, "", o)
	require.NoError(t, err)
	require.Equal(t, k, again)
	require.Contains(t, log.String(), "the cached kernel is damaged")
	file, err := os.ReadFile(k.Path)
	require.NoError(t, err)
	require.Equal(t, bzImage("7.1.2"), file)
}

func TestAGoModuleWithoutAKernel(t *testing.T) {
	for name, c := range map[string]struct {
		lacks, says string
		with        []byte
	}{
		"no kernel":  {"vmlinuz", "the module has [modules/modules.builtin] instead of a kernel and the list of its drivers", nil},
		"no drivers": {"lib/modules/7.1.3/modules.builtin", "the module has [vmlinuz] instead of", nil},
		"no release": {"vmlinuz", "the kernel's file does not name its release", []byte("kernel")},
	} {
		t.Run(name, func(t *testing.T) {
			files := gokrazysFiles()
			delete(files, c.lacks)
			if c.with != nil {
				files[c.lacks] = c.with
			}
			o := Options{Cache: t.TempDir()}
			_, err := fetchModule(t.Context(), fakeTarget, publishKernel(t, files), "", o)
			require.ErrorContains(t, err, c.says)
			requireEmpty(t, filepath.Join(o.Cache, "kernels"))
		})
	}
	set := publishKernel(t, gokrazysFiles())
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOPROXY", "off")
	_, err := fetchModule(t.Context(), fakeTarget, set, "", Options{Cache: t.TempDir()})
	require.ErrorContains(t, err, "module lookup disabled by GOPROXY=off")
	require.ErrorContains(t, err, "hint: check GOPROXY and the network")
}

func TestTheKernelOfAHostWithoutApt(t *testing.T) {
	fetched := func(o Options, name string) string {
		tg, err := target.Lookup(name)
		require.NoError(t, err)
		c, err := openCache(o)
		require.NoError(t, err)
		kernel, err := defaultKernel(tg, c)
		require.NoError(t, err)
		return kernel
	}
	o := Options{Cache: t.TempDir()}
	bin := t.TempDir()
	for _, name := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/false\n"), 0o777))
	}
	t.Setenv("PATH", bin)
	require.Equal(t, "debian", fetched(o, "arm64"), "with apt")
	noApt(t)
	require.Equal(t, "gokrazy", fetched(o, "arm64"))
	require.Equal(t, "gokrazy", fetched(o, "x86_64"))
	require.Equal(t, "debian", fetched(o, "arm"), "gokrazy has no kernel for it")

	_, err := FetchKernel(t.Context(), "arm", o)
	require.ErrorContains(t, err, "this is not a Debian system")
	require.ErrorContains(t, err, "hint: use -kernel gokrazy, which needs no apt, for x86_64 and arm64, or give your own kernel")
	_, err = FetchKernel(t.Context(), "arm", Options{Cache: o.Cache, Kernel: "gokrazy"})
	require.ErrorContains(t, err, "use kernel gokrazy: gokrazy has no kernel for the target arm, only for x86_64 and arm64")

	// A kernel of Debian that the cache has needs no apt.
	c, err := openCache(o)
	require.NoError(t, err)
	tested, err := imagecache.Tested("arm64")
	require.NoError(t, err)
	dir := c.Path(imagecache.Kernels, tested.Key())
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, imagecache.Manifest{Debs: tested}.Write(dir))
	require.Equal(t, "debian", fetched(o, "arm64"))
}
