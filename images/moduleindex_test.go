package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
)

func TestTheIndexHasEveryModuleThatCanBeLoaded(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"kernel/net/bridge.ko.xz":  xzed(t, fakeModule("stp,llc\x00alias=rtnl-link-bridge")),
		"kernel/net/stp.ko":        fakeModule("llc"),
		"kernel/net/llc.ko":        fakeModule("builtin-one"),
		"kernel/net/orphan.ko":     fakeModule("missing"),
		"kernel/net/of-orphan.ko":  fakeModule("orphan"),
		"kernel/net/broken.ko":     []byte("no module"),
		"modules.builtin":          []byte("kernel/lib/builtin-one.ko\n"),
		"kernel/net/readme.gz":     nil,
		"kernel/net/circle-one.ko": fakeModule("circle-two"),
		"kernel/net/circle-two.ko": fakeModule("circle-one"),
	} {
		file := filepath.Join(dir, "modules", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
		require.NoError(t, os.WriteFile(file, data, 0o666))
	}
	k := imagecache.Kernel{Dir: dir, Manifest: imagecache.Manifest{Release: "1", Files: map[string]string{"vmlinuz": "sum"}}}
	require.NoError(t, k.Manifest.Write(dir))
	for range 2 { // the second time there is nothing to do
		indexed := addIndex(k)
		m, err := imagecache.ReadManifest(dir)
		require.NoError(t, err)
		require.Equal(t, m, indexed)
		require.Equal(t, "sum", m.Files["vmlinuz"])
		f, err := m.Open(dir, depFile)
		require.NoError(t, err)
		f.Close()
		text, err := os.ReadFile(filepath.Join(dir, depFile))
		require.NoError(t, err)
		require.Equal(t, "kernel/net/llc.ko:\nkernel/net/stp.ko: kernel/net/llc.ko\n"+
			"kernel/net/bridge.ko.xz: kernel/net/stp.ko kernel/net/llc.ko\n", string(text))
		text, err = os.ReadFile(filepath.Join(dir, aliasFile))
		require.NoError(t, err)
		require.Equal(t, "alias rtnl-link-bridge bridge\n", string(text))
		k.Manifest = m
	}
	left, err := filepath.Glob(filepath.Join(dir, "index-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
