package executable

import (
	"debug/elf"
	"os"
	"os/exec"
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

func TestAMissingLibraryIsNamed(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("a C compiler builds the library: ", err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "f.c")
	library, program := filepath.Join(dir, "libextra.so"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, []byte("int f(void) { return 0; } int main(void) { return f(); }"), 0o600))
	run := func(args ...string) {
		out, err := exec.Command(gcc, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("-shared", "-fPIC", "-o", library, source)
	run("-o", program, source, "-Wl,--no-as-needed", "-L"+dir, "-lextra")
	f, err := Check(program, host(t))
	require.NoError(t, err)
	all, err := f.Libraries(t.Context(), dir)
	require.NoError(t, err)
	require.Contains(t, all, library, "LD_LIBRARY_PATH leads to it")
	_, err = f.Libraries(t.Context(), "")
	require.ErrorContains(t, err, "program "+program+": its libraries: error while loading shared libraries: libextra.so: cannot open shared object file")
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
