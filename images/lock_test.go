package images

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
)

const (
	lockFile    = "../internal/imagecache/lock.json"
	gokrazyFile = "../internal/imagecache/gokrazy.json"
)

// go test ./images -run TestLock -update
var update = flag.Bool("update", false, "write lock.json and gokrazy.json with the newest kernels")

func TestLock(t *testing.T) {
	if *update {
		data, err := newestLock(t.Context(), Options{Cache: t.TempDir()})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(lockFile, data, 0o666))
		data, err = newestModules(t.Context(), t.TempDir())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(gokrazyFile, data, 0o666))
	}
	data, err := os.ReadFile(lockFile)
	require.NoError(t, err)
	var lock map[string]imagecache.KernelSet
	require.NoError(t, json.Unmarshal(data, &lock))
	for _, name := range target.Names() {
		set := lock[name]
		require.NotEmpty(t, set, "%s has no tested kernel: run this test with -update", name)
		for _, d := range set {
			require.Regexp(t, `^linux-(image|binary|modules|base)-\d`, d.Package)
			require.Regexp(t, `^\d\S+$`, d.Version)
			require.Regexp(t, `^[0-9a-f]{64}$`, d.SHA256)
			require.Positive(t, d.Size)
		}
	}
}

func TestGokrazyLock(t *testing.T) {
	for name, module := range gokrazyModules {
		set, err := imagecache.Gokrazy(name)
		require.NoError(t, err)
		require.Len(t, set, 1)
		require.Equal(t, module, set[0].Package)
		require.Regexp(t, `^v\d+\.\d+\.\d+`, set[0].Version)
		require.Regexp(t, `^[0-9a-f]{64}$`, set[0].SHA256)
		require.Positive(t, set[0].Size)
	}
}

// gokrazyModules are the Go modules of gokrazy's kernels that boot on a target's machine.
var gokrazyModules = map[string]string{
	"arm64":  "github.com/gokrazy/kernel.arm64",
	"x86_64": "github.com/gokrazy/kernel.amd64",
}

// newestModules returns a gokrazy.json with the newest modules. The go command checks each one against its
// database of checksums.
func newestModules(ctx context.Context, dir string) ([]byte, error) {
	lock := make(map[string]imagecache.KernelSet)
	for name, module := range gokrazyModules {
		var out bytes.Buffer
		var m struct{ Version, Zip string }
		if _, err := run(ctx, command{dir: dir, path: "go", args: []string{"mod", "download", "-json", module + "@latest"}, stdout: &out}); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			return nil, err
		}
		sum, err := moduleSum(m.Zip)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(m.Zip)
		if err != nil {
			return nil, err
		}
		lock[name] = imagecache.KernelSet{{Package: module, Version: m.Version, SHA256: sum, Size: info.Size()}}
	}
	data, err := json.MarshalIndent(lock, "", "\t")
	return append(data, '\n'), err
}

// newestLock returns a lock.json with the newest kernel of each target that the client's apt
// sources offer.
func newestLock(ctx context.Context, o Options) ([]byte, error) {
	c, err := openCache(o)
	if err != nil {
		return nil, err
	}
	lock := make(map[string]imagecache.KernelSet)
	for _, t := range target.All() {
		set, err := newestSet(ctx, c, t)
		if err != nil {
			return nil, fail("lock kernel", t.Name, err, "")
		}
		lock[t.Name] = set
	}
	data, err := json.MarshalIndent(lock, "", "\t")
	return append(data, '\n'), err
}

func newestSet(ctx context.Context, c *imagecache.Cache, t target.Target) (imagecache.KernelSet, error) {
	b, err := c.Build(ctx, "kernel-"+t.Name)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a, err := newApt(b.Path("apt"), t.DebianArch)
	if err != nil {
		return nil, err
	}
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	return a.resolve(ctx, t.KernelPackage, "")
}
