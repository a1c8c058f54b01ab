package executable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/tied"
)

// Libraries returns the paths of the shared libraries that an executable with an interpreter loads when it
// starts, and the interpreter itself. The host's own dynamic loader finds them, so the executable must be one
// that the host can run. libraryPath is the LD_LIBRARY_PATH with which the executable will run. The error names a
// library that is missing.
func (f File) Libraries(ctx context.Context, libraryPath string) ([]string, error) {
	if f.Interpreter == "" {
		return nil, nil
	}
	fail := func(err error) ([]string, error) { return nil, fmt.Errorf("program %s: %w", f.Path, err) }
	if _, err := os.Stat(f.Interpreter); err != nil {
		return fail(fmt.Errorf("it needs the interpreter %s and shared libraries, which this host lacks; build it with CGO_ENABLED=0 or -static", f.Interpreter))
	}
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return fail(err)
	}
	// The loaders of glibc and musl print a line for each library: "\tlibc.so.6 => /lib/libc.so.6 (0x7f…)".
	cmd := exec.CommandContext(ctx, f.Interpreter, "--list", path)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.Env = []string{"LC_ALL=C", "LD_LIBRARY_PATH=" + libraryPath}
	ended, err := tied.Start(cmd)
	if err == nil {
		err = <-ended
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if said := strings.TrimSpace(stderr.String()); err != nil && said != "" {
		err = errors.New(printable.Text(strings.TrimPrefix(said, path+": ")))
	}
	if err != nil {
		return fail(fmt.Errorf("its libraries: %w", err))
	}
	all := []string{f.Interpreter}
	for line := range strings.Lines(out.String()) {
		name, found, _ := strings.Cut(strings.TrimSpace(line), " => ")
		if found == "not found" {
			return fail(fmt.Errorf("its library %s is missing", name))
		}
		if found == "" {
			found = name // the interpreter, or a library that is named by its path
		}
		if found, _, _ = strings.Cut(found, " ("); filepath.IsAbs(found) && !slices.Contains(all, filepath.Clean(found)) {
			all = append(all, filepath.Clean(found))
		}
	}
	return all, nil
}
