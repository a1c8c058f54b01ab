package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/mod/modfile"
)

// sourceDir is the directory of guesthouse's sources, for a program that is built with -trimpath. The
// Makefile sets it with the linker's flag -X.
var sourceDir string

// OwnDir returns the directory of the sources of this program's version of guesthouse, for Options.Dir. A
// platform from these sources needs no module of the user. It fails if the sources are not on this host, because
// the program was built elsewhere or with -trimpath, and are not published either.
func OwnDir(ctx context.Context) (string, error) {
	const step = "find the sources of"
	dir := sourceDir
	if _, file, _, ok := runtime.Caller(0); ok && dir == "" && filepath.IsAbs(file) {
		dir = filepath.Dir(filepath.Dir(file))
	}
	if dir != "" && isOwn(dir) {
		return dir, nil
	}
	version := ownVersion()
	if version == "" {
		return "", fail(step, modulePath, errors.New("this program was built elsewhere or with -trimpath, from a version that is not published"),
			"build guesthouse on this host from a checkout, with: go install ./harness/cmd/guesthouse")
	}
	var out bytes.Buffer
	var module struct{ Dir string }
	_, err := run(ctx, command{dir: os.TempDir(), path: "go", env: append(os.Environ(), "GOWORK=off", "GOFLAGS="),
		args: []string{"mod", "download", "-json", modulePath + "@" + version}, stdout: &out})
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &module)
	}
	if err != nil {
		return "", fail(step, modulePath+" "+version, err, downloadHint)
	}
	return module.Dir, nil
}

// isOwn reports whether a directory holds the module of guesthouse.
func isOwn(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && modfile.ModulePath(text) == modulePath
}

// ownVersion returns the published version of guesthouse in this program, or an empty string.
func ownVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == modulePath && m.Replace == nil && m.Sum != "" {
			return m.Version
		}
	}
	return ""
}
