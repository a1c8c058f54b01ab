package images

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
)

func TestKernelNames(t *testing.T) {
	names, err := KernelNames("debian, debian:linux-image-rt-amd64,host,./bzImage")
	require.NoError(t, err)
	require.Equal(t, []string{"debian", "debian:linux-image-rt-amd64", "host", "./bzImage"}, names)
	_, err = KernelNames("debian,,host")
	require.ErrorContains(t, err, `kernels "debian,,host": an empty name in the list: a kernel is debian`)
	_, err = KernelNames("")
	require.Error(t, err)
	_, err = KernelNames("host,debian,host")
	require.ErrorContains(t, err, "host is listed twice")
}

// withRT adds a metapackage, and another kernel in two versions, to a mirror.
func withRT(t *testing.T, m *mirror) {
	rt := func(version string) fakePackage {
		files := map[string][]byte{}
		for name, data := range fakeKernelFiles() {
			files[strings.ReplaceAll(name, fakeRelease, fakeRelease+"-rt")] = append(data, version...)
		}
		return m.kernelPackage(t, "linux-image-1-rt-fake", version, "kmod, linux-base (>= 4.3~)", files)
	}
	m.Packages = append(m.Packages,
		fakePackage{Deb: imagecache.Deb{Package: "linux-image-rt-fake", Version: "1.2.4-1", SHA256: strings.Repeat("1", 64), Size: 1480},
			Depends: "linux-image-1-rt-fake (= 1.2.4-1)"},
		rt("1.2.4-1"), rt("1.2.3-1"),
		fakePackage{Deb: imagecache.Deb{Package: "linux-image-1-rt-fake-dbg", Version: "1.2.4-1", SHA256: strings.Repeat("2", 64)}})
	m.save(t)
}

func TestAKernelOfANamedPackageStaysInTheCache(t *testing.T) {
	m, tested := fakeMirror(t)
	withRT(t, m)
	var log bytes.Buffer
	o := Options{Cache: t.TempDir(), Log: &log}
	byDefault, err := fetchKernel(t.Context(), fakeTarget, tested, o)
	require.NoError(t, err)
	log.Reset()

	k, err := fetchPackage(t.Context(), fakeTarget, tested, "linux-image-rt-fake", "", o)
	require.NoError(t, err)
	require.Equal(t, "linux-image-1-rt-fake", k.Package, "the metapackage's kernel")
	require.Equal(t, "1.2.4-1", k.Version)
	require.Equal(t, fakeRelease+"-rt", k.Release)
	require.False(t, k.Tested)
	require.Equal(t, "guesthouse: fake: fetching linux-image-1-rt-fake 1.2.4-1 (0.0 MB)\n", log.String())
	require.Equal(t, 2, m.calls(t, "download"))

	// The same package by its own name and version needs no second download.
	same, err := fetchPackage(t.Context(), fakeTarget, tested, "linux-image-1-rt-fake", "1.2.4-1", o)
	require.NoError(t, err)
	require.Equal(t, k, same)
	require.Equal(t, 2, m.calls(t, "download"))

	older, err := fetchPackage(t.Context(), fakeTarget, tested, "linux-image-1-rt-fake", "1.2.3-1", o)
	require.NoError(t, err)
	require.Equal(t, "1.2.3-1", older.Version)
	require.NotEqual(t, k.SHA256, older.SHA256)

	// All of them are there without a network, and the tested one stays the default.
	updates := m.calls(t, "update")
	noApt(t)
	again, err := fetchPackage(t.Context(), fakeTarget, tested, "linux-image-rt-fake", "", o)
	require.NoError(t, err)
	require.Equal(t, k, again)
	kept, err := fetchKernel(t.Context(), fakeTarget, tested, o)
	require.NoError(t, err)
	require.Equal(t, byDefault, kept)
	require.Equal(t, updates, m.calls(t, "update"))

	c, err := imagecache.Open(o.Cache)
	require.NoError(t, err)
	require.Len(t, c.NamedKernels("fake"), 3)
	require.NoError(t, c.RemoveKernels(t.Context()))
	require.Empty(t, c.NamedKernels("fake"))
	_, err = os.Stat(k.Path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAPackageThatAptDoesNotOffer(t *testing.T) {
	m, tested := fakeMirror(t)
	withRT(t, m)
	o := Options{Cache: t.TempDir()}
	_, err := fetchPackage(t.Context(), fakeTarget, tested, "linux-image-rf-fake", "", o)
	require.ErrorContains(t, err, "fetch kernel fake: apt's sources offer no package linux-image-rf-fake; similar names are linux-image-rt-fake, linux-image-")
	require.NotContains(t, err.Error(), "dbg")
	require.ErrorContains(t, err, "hint: list the packages with: guesthouse kernels -all -target fake")
	_, err = fetchPackage(t.Context(), fakeTarget, tested, "linux-image-1-rt-fake", "9", o)
	require.ErrorContains(t, err, "apt's sources offer no package linux-image-1-rt-fake 9")

	m.Packages, m.UpdateSays = nil, "Err: Temporary failure resolving the mirror"
	m.save(t)
	_, err = fetchPackage(t.Context(), fakeTarget, tested, "linux-image-rt-fake", "", o)
	require.ErrorContains(t, err, "Temporary failure resolving the mirror")
	require.ErrorContains(t, err, "hint: check the network and apt's sources")
	requireEmpty(t, filepath.Join(o.Cache, "kernels"))
}

func TestAPackageWithoutAKernel(t *testing.T) {
	m, tested := fakeMirror(t)
	m.Packages = append(m.Packages, fakePackage{Deb: imagecache.Deb{Package: "firmware", Version: "1", SHA256: strings.Repeat("3", 64)}})
	m.save(t)
	_, err := fetchPackage(t.Context(), fakeTarget, tested, "firmware", "", Options{Cache: t.TempDir()})
	require.ErrorContains(t, err, "firmware 1 depends on no kernel package")
}

func TestWrongNamesOfKernels(t *testing.T) {
	noApt(t)
	o := Options{Cache: t.TempDir()}
	for name, says := range map[string]string{
		"rt":                    "use kernel rt: no kernel has this name, and there is no such file\nhint: a kernel is debian, debian:PACKAGE, debian:PACKAGE=VERSION, gokrazy, host, or the path of a file or directory",
		"debian:":               `use kernel debian:: "" is not the name of a package`,
		"debian:../x":           `"../x" is not the name of a package`,
		"debian:linux-image=/x": `"/x" is not the version of a package`,
		"debian:linux-image-rt": "fetch kernel arm64: this is not a Debian system",
		"./none":                "no such file or directory",
	} {
		o.Kernel = name
		_, err := FetchKernel(t.Context(), "arm64", o)
		require.ErrorContains(t, err, says, name)
	}
	for _, name := range []string{"", "debian", "gokrazy", "host", "debian:linux-image-rt-arm64"} {
		_, err := FetchKernel(t.Context(), "arm64", Options{Cache: o.Cache, Kernel: name, Modules: "/lib/modules/1"})
		require.ErrorContains(t, err, "modules without a kernel file", name)
	}
}

func TestOffers(t *testing.T) {
	m, _ := fakeMirror(t)
	withRT(t, m)
	all, err := offers(t.Context(), fakeTarget, Options{Cache: t.TempDir()})
	require.NoError(t, err)
	var names []string
	for _, o := range all {
		names = append(names, o.Name)
	}
	require.Equal(t, []string{"linux-image-1-fake", "linux-image-1-rt-fake", "linux-image-fake", "linux-image-rt-fake"}, names)
	require.False(t, all[1].Meta())
	require.Equal(t, "1.2.4-1", all[1].Version, "the newest")
	require.True(t, all[3].Meta())
	require.Equal(t, all[1].Package, all[3].Package)
	require.Equal(t, all[1].Size, all[3].Size, "the size of the kernel and not of the metapackage")

	m.Packages, m.UpdateSays = nil, "Err: Temporary failure resolving the mirror"
	m.save(t)
	_, err = offers(t.Context(), fakeTarget, Options{Cache: t.TempDir()})
	require.ErrorContains(t, err, "Temporary failure resolving the mirror")
}
