package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
)

// QEMU runs with a filter of system calls and a umask that keeps other users out. It inherits neither
// the secrets in its owner's environment nor the descriptors that the owner inherited.
func TestQEMUIsConfined(t *testing.T) {
	t.Parallel()
	require.NoError(t, os.Setenv("SERVICE_TOKEN", "a secret of the owner's")) // which no other test reads
	inherited := filepath.Join(t.TempDir(), "inherited")
	require.NoError(t, os.WriteFile(inherited, nil, 0o600))
	fd, err := unix.Open(inherited, unix.O_RDONLY, 0) // like a descriptor that a parent left open
	require.NoError(t, err)
	defer unix.Close(fd)
	ours := modeOfNewFile(t)

	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	cache.Prefetch = true
	defer cache.Close()
	first, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer first.Close()
	waiting, err := cache.Waiting(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, waiting)
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, harness.BootPrefetched, m.Result().Boot, m.Result().Why)
	conn, err := m.Dial(t.Context(), "udp", echoPort)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn, "confined and at work")
	for _, machine := range []*harness.Machine{first, m} {
		qemu := machine.Result().PID
		status := readProc(t, qemu, "status")
		require.Regexp(t, regexp.MustCompile(`(?m)^Seccomp:\s+2$`), status)
		require.Regexp(t, regexp.MustCompile(`(?m)^NoNewPrivs:\s+1$`), status)
		require.Regexp(t, regexp.MustCompile(`(?m)^Umask:\s+0077$`), status)
		require.NotContains(t, readProc(t, qemu, "environ"), "SERVICE_TOKEN")
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", qemu))
		require.NoError(t, err)
		require.NotEmpty(t, links)
		for _, link := range links {
			opened, _ := os.Readlink(link) // fails if the descriptor was closed meanwhile
			require.NotEqual(t, inherited, opened, link)
		}
	}
	require.Equal(t, ours, modeOfNewFile(t), "the owner's umask is unchanged")
}

// modeOfNewFile returns the mode that the umask leaves a new file. The umask in /proc is that of the first thread,
// which may be the one that has started a QEMU, and which then runs nothing else.
func modeOfNewFile(t *testing.T) fs.FileMode {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "new"), os.O_CREATE, 0o666)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	return info.Mode()
}

func readProc(t *testing.T, pid int, file string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	require.NoError(t, err)
	return string(text)
}

// Other users can read neither a template, which holds the guest's memory, nor a record.
func TestTemplatesAndRecordsArePrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spec := echoSpec(t, oneTarget(t))
	spec.Accel = harness.TCG
	spec.Dir = filepath.Join(dir, "record")
	cache := &harness.TemplateCache{Dir: filepath.Join(dir, "cache")}
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	_, err = m.Save(t.Context(), filepath.Join(dir, "template"))
	require.NoError(t, err)

	seen := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir || filepath.Base(filepath.Dir(path)) == "locks" { // lock files have no content
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		seen++
		return err
	}))
	require.Greater(t, seen, 15, "two templates and a record have more files")
}

// The harness notices a write to a template that leaves the file's size and modification time
// unchanged.
func TestAForgedTemplateIsNotRestored(t *testing.T) {
	t.Parallel()
	spec := echoSpec(t, oneTarget(t))
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	require.Equal(t, savedFirst(spec), bootFrom(t, cache, spec))
	all := templates(t, cache)
	require.Len(t, all, 1)
	template := filepath.Join(cache.Dir, all[0].Key)
	ram := filepath.Join(template, "ram")

	// The change time differs, as in a copy, and the content is right.
	before, err := os.Stat(ram)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(ram, time.Now(), time.Now()))
	require.Equal(t, "restored", bootFrom(t, cache, spec), "the whole file was hashed again")

	f, err := os.OpenFile(ram, os.O_RDWR, 0)
	require.NoError(t, err)
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	require.NoError(t, err)
	one := make([]byte, 1)
	_, err = f.ReadAt(one, at)
	require.NoError(t, err)
	one[0] ^= 0xff
	_, err = f.WriteAt(one, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.Chtimes(ram, before.ModTime(), before.ModTime()))
	require.Contains(t, bootFrom(t, cache, spec), string(withoutTemplate(spec))+": template "+template+": ram is damaged")

	// A template that other users can write to is not restored either.
	all = templates(t, cache)
	require.Empty(t, all)
	require.Equal(t, savedFirst(spec), bootFrom(t, cache, spec))
	require.NoError(t, os.Chmod(filepath.Join(template, "template.json"), 0o666))
	require.Contains(t, bootFrom(t, cache, spec), "can be written by other users")
}
