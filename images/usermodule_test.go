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
		_, err := Build(t.Context(), "arm64", ".", Options{Dir: dir}) // with the user's cache, as u-root's commands are the same
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
		publish(t, root, version)
		dir := guestModule(t, version, "")
		inModule(t, dir, "mod", "tidy")
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

// publish makes an empty module cache, and a module proxy that has this module and all that the
// module cache of before holds.
func publish(t *testing.T, root, version string) {
	held := inModule(t, root, "env", "GOMODCACHE") + "/cache/download"
	others := inModule(t, root, "env", "GOPROXY")
	proxy := filepath.Join(t.TempDir(), "proxy")
	dir := filepath.Join(proxy, "guesthouse.example", "@v")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	// What package images and a guest are compiled from.
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

	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOPROXY", "file://"+proxy+",file://"+held+","+others)
	t.Setenv("GONOSUMDB", "guesthouse.example")
	t.Cleanup(func() { inModule(t, root, "clean", "-modcache") }) // its directories are read-only
}
