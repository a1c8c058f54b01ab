package images

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	xmodule "golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// "go mod tidy" keeps only the checksums of what the guest imports.
func TestAModuleWithOnlyAGuestBuilds(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	build := func(t *testing.T, dir string) {
		_, err := Build(t.Context(), "arm64", ".", Options{Dir: dir}) // in the user's cache, which has u-root's commands
		require.NoError(t, err)
	}
	t.Run("from a checkout", func(t *testing.T) {
		dir := guestModule(t, "v0.0.0", "replace guesthouse.example => "+root)
		inModule(t, dir, "mod", "tidy")
		build(t, dir)
		inModule(t, dir, "mod", "vendor")
		build(t, dir)
	})
	t.Run("from a proxy", func(t *testing.T) {
		const version = "v0.1.0"
		held := inModule(t, root, "env", "GOMODCACHE")
		publish(t, root, version)
		dir := guestModule(t, version, "")
		t.Setenv("GOMODCACHE", cacheWithoutGuesthouse(t, held))
		inModule(t, dir, "mod", "tidy")
		t.Setenv("GOMODCACHE", cacheWithoutGuesthouse(t, held)) // as on a host that has only go.mod and go.sum
		build(t, dir)
	})
}

// guestModule makes a module of a user that has only a guest.
func guestModule(t *testing.T, version, replace string) (dir string) {
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/go.mod", fmt.Appendf(nil,
		"module sensor.example\n\ngo 1.26.0\n\nrequire guesthouse.example %s\n\n%s\n", version, replace), 0o666))
	require.NoError(t, os.WriteFile(dir+"/main.go", []byte(
		"package main\n\nimport \"guesthouse.example/guest\"\n\nfunc main() { guest.Main(func() error { return nil }) }\n"), 0o666))
	return dir
}

func inModule(t *testing.T, dir string, args ...string) (out string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "go %v: %s", args, text)
	return strings.TrimSpace(string(text))
}

// publish puts the sources of package images and of a guest into a module proxy, as a version of this
// module.
func publish(t *testing.T, root, version string) {
	proxy := filepath.Join(t.TempDir(), "proxy")
	dir := filepath.Join(proxy, "guesthouse.example", "@v")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	tree := t.TempDir()
	for _, folder := range []string{"guest", "images", "internal"} {
		require.NoError(t, os.CopyFS(filepath.Join(tree, folder), os.DirFS(filepath.Join(root, folder))))
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(tree, "go.mod"), mod, 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, version+".mod"), mod, 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, version+".info"), fmt.Appendf(nil, "{%q: %q}", "Version", version), 0o666))
	archive, err := os.Create(filepath.Join(dir, version+".zip"))
	require.NoError(t, err)
	require.NoError(t, zip.CreateFromDir(archive, xmodule.Version{Path: "guesthouse.example", Version: version}, tree))
	require.NoError(t, archive.Close())
	t.Setenv("GOPROXY", "file://"+proxy+","+inModule(t, root, "env", "GOPROXY"))
	t.Setenv("GONOSUMDB", "guesthouse.example")
}

// cacheWithoutGuesthouse makes a module cache that lacks this module and shares all others with the
// module cache held.
func cacheWithoutGuesthouse(t *testing.T, held string) (dir string) {
	dir = t.TempDir()
	share := func(folder string) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o777))
		entries, err := os.ReadDir(filepath.Join(held, folder))
		require.NoError(t, err)
		for _, e := range entries {
			switch name := filepath.Join(folder, e.Name()); {
			case name == "cache", name == "cache/download", name == "cache/lock", strings.Contains(name, "guesthouse.example"):
			default:
				require.NoError(t, os.Symlink(filepath.Join(held, name), filepath.Join(dir, name)))
			}
		}
	}
	share(".")
	share("cache")
	share("cache/download")
	// The module's directories are read-only. A directory that is linked to stays.
	t.Cleanup(func() {
		cmd := exec.Command("go", "clean", "-modcache")
		cmd.Env = append(os.Environ(), "GOMODCACHE="+dir)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return dir
}
