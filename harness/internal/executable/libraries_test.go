package executable

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// host returns the target whose programs this host runs.
func host(t *testing.T) target.Target {
	t.Helper()
	all := target.All()
	i := slices.IndexFunc(all, func(t target.Target) bool { return t.GOARCH == runtime.GOARCH })
	require.NotEqual(t, -1, i)
	return all[i]
}

func TestTheLibrariesOfADynamicExecutableAreFound(t *testing.T) {
	f, err := Check("/bin/ls", host(t))
	require.NoError(t, err)
	all, err := f.Libraries(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, f.Interpreter, all[0])
	require.Contains(t, strings.Join(all, "\n"), "/libc.so")
	for _, file := range all {
		require.FileExists(t, file)
	}
	static := File{Path: "/bin/static"}
	all, err = static.Libraries(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, all)
}

// The program is one of the host's that asks for a C library of another name.
func TestAMissingLibraryIsNamed(t *testing.T) {
	whole, err := Check("/bin/ls", host(t))
	require.NoError(t, err)
	libraries, err := whole.Libraries(t.Context(), "")
	require.NoError(t, err)
	i := slices.IndexFunc(libraries, func(file string) bool { return filepath.Base(file) == "libc.so.6" })
	require.NotEqual(t, -1, i)
	code, err := os.ReadFile("/bin/ls")
	require.NoError(t, err)
	name, other := []byte("\x00libc.so.6\x00"), []byte("\x00libq.so.6\x00")
	require.Contains(t, string(code), string(name))
	program := write(t, "program", bytes.ReplaceAll(code, name, other), 0o755)

	f, err := Check(program, host(t))
	require.NoError(t, err)
	_, err = f.Libraries(t.Context(), "")
	require.ErrorContains(t, err, "program "+program+": its libraries: error while loading shared libraries: libq.so.6: cannot open shared object file")

	dir := t.TempDir()
	library := filepath.Join(dir, "libq.so.6")
	require.NoError(t, os.Symlink(libraries[i], library))
	all, err := f.Libraries(t.Context(), dir)
	require.NoError(t, err)
	require.Contains(t, all, library, "LD_LIBRARY_PATH leads to it")
}

func TestAnInterpreterOfAnotherSystemIsNamed(t *testing.T) {
	other, err := target.Lookup("arm64")
	require.NoError(t, err)
	file := write(t, "program", elf64(t, elf.EM_AARCH64, elf.ET_EXEC, "/lib/ld-of-another-system.so.1"), 0o755)
	f, err := Check(file, other)
	require.NoError(t, err)
	_, err = f.Libraries(t.Context(), "")
	require.ErrorContains(t, err, "it needs the interpreter /lib/ld-of-another-system.so.1 and shared libraries, which this host lacks; build it with CGO_ENABLED=0 or -static")
}
