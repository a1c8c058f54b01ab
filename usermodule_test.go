package guesthouse

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// maxModules is how many modules "go list -m all" may list in a user's module, that module included.
// The modules that only tools or the busybox need are not among them: scripts/tools/go.mod and
// images/busybox.mod pin those.
const maxModules = 25

func TestAUsersModuleListsFewModules(t *testing.T) {
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, data, 0o666))
	}
	// The example of the README.
	for _, name := range []string{"cmd/upper/main.go", "upper_test.go"} {
		data, err := os.ReadFile(filepath.Join("harness/harnesstest/example", name))
		require.NoError(t, err)
		write(name, data)
	}
	write("go.mod", []byte("module user.example\n\ngo 1.26.0\n"))
	sums, err := os.ReadFile("go.sum") // so that the go command asks no checksum database
	require.NoError(t, err)
	write("go.sum", sums)

	env := append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, env
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "go %v: %s", args, &said)
		return strings.TrimSpace(string(out))
	}
	cache, proxy := run("env", "GOMODCACHE"), run("env", "GOPROXY")
	env = append(env, "GOPROXY=file://"+cache+"/cache/download,"+proxy)
	run("mod", "edit", "-require=guesthouse.example@v0.0.0", "-replace=guesthouse.example="+root)
	check := func() {
		run("mod", "tidy")
		modules := strings.Split(run("list", "-m", "all"), "\n")
		require.LessOrEqual(t, len(modules), maxModules, "the modules are\n%s", strings.Join(modules, "\n"))
		// It fails if go.sum lacks a module.
		run("list", "-deps", "-test", "./...", "guesthouse.example/harness/cmd/guesthouse")
	}
	check()

	// A module that has only a guest.
	require.NoError(t, os.Remove(filepath.Join(dir, "upper_test.go")))
	run("mod", "edit", "-tool=guesthouse.example/harness/cmd/guesthouse")
	check()
}
