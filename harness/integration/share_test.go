package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/apart"
)

// shared makes a directory for a guest, with the program "files" in it.
func shared(t *testing.T, target string) string {
	t.Helper()
	return filepath.Dir(built(t, target, "./guests/files"))
}

// files runs the program "files" from a shared directory of a machine and returns what it prints.
func files(t *testing.T, m *harnesstest.Machine, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := m.Machine.Within(t.Context(), 4*harnesstest.Within)
	defer cancel()
	cmd := m.Machine.Command(ctx, dir+"/files", args...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
	return strings.TrimSuffix(string(out), "\n")
}

// A holder is a program "files" that runs and answers lines.
type holder struct {
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Reader
}

func hold(t *testing.T, m *harnesstest.Machine, dir string, args ...string) *holder {
	t.Helper()
	cmd := m.Command(dir+"/files", args...)
	h := &holder{t: t, in: cmd.StdinPipe(), lines: bufio.NewReader(cmd.StdoutPipe())}
	cmd.Start()
	return h
}

func (h *holder) line() string {
	h.t.Helper()
	line, err := h.lines.ReadString('\n')
	require.NoError(h.t, err)
	return strings.TrimSuffix(line, "\n")
}

func (h *holder) again() string {
	h.t.Helper()
	_, err := io.WriteString(h.in, "\n")
	require.NoError(h.t, err)
	return h.line()
}

func write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o666))
}

func TestTheGuestSeesDirectoriesOfTheHost(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		dir := shared(t, target)
		write(t, filepath.Join(dir, "greeting"), "hello from the host")
		write(t, filepath.Join(dir, "sub/deep/file"), "deep")
		require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "link")))
		spec := harnesstest.Platform(t, target)
		spec.Share = []harness.Share{
			{Host: dir}, {Host: dir, Guest: "/mnt/write", Mode: harness.ShareWrite}, {Host: dir, Guest: "/mnt/over lay", Mode: harness.ShareOverlay},
		}
		for range 2 { // the second machine is restored
			m := harnesstest.Boot(t, spec)
			t.Log(m.Result().Boot, m.Result().Why)

			// Files runs from each of them.
			require.Equal(t, "hello from the host", files(t, m, dir, "cat", dir+"/greeting"))
			require.Equal(t, "deep", files(t, m, "/mnt/over lay", "cat", "/mnt/over lay/sub/deep/file"))
			require.Equal(t, "EROFS", files(t, m, dir, "write", dir+"/greeting", "x"))
			require.Equal(t, "EROFS", files(t, m, dir, "mkdir", dir+"/new"))
			require.Equal(t, "EROFS", files(t, m, dir, "remove", dir+"/greeting"))
			require.Equal(t, files(t, m, dir, "cat", "/etc/hostname"), files(t, m, dir, "cat", dir+"/link"), "the guest's file, not the host's")

			// What the guest writes through is on the host.
			write(t, filepath.Join(dir, "battery/x"), "")
			require.Equal(t, "ok", files(t, m, "/mnt/write", "battery", "/mnt/write/battery"))
			content, err := os.ReadFile(filepath.Join(dir, "battery/z/b"))
			require.NoError(t, err)
			require.Equal(t, "one", string(content))
			content, err = os.ReadFile(filepath.Join(dir, "battery/z/m"))
			require.NoError(t, err)
			require.Equal(t, "mapped", string(content[1<<19:][:6]))
			require.Equal(t, "one", files(t, m, dir, "cat", dir+"/battery/z/a"))
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "battery")))

			// What it changes in an overlay stays in the guest.
			require.Equal(t, "ok", files(t, m, "/mnt/over lay", "battery", "/mnt/over lay"))
			require.Equal(t, "ok", files(t, m, "/mnt/over lay", "write", "/mnt/over lay/greeting", "changed"))
			require.Equal(t, "changed", files(t, m, "/mnt/over lay", "cat", "/mnt/over lay/greeting"))
			require.Equal(t, "ok", files(t, m, "/mnt/over lay", "remove", "/mnt/over lay/sub/deep/file"))
			require.Equal(t, "hello from the host", files(t, m, dir, "cat", dir+"/greeting"))
			require.Equal(t, "deep", files(t, m, dir, "cat", dir+"/sub/deep/file"))
			names, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, names, 4)
			m.Shutdown()
		}
	})
}

// A change on the host is seen when the guest opens the file the next time, also if it has read it a moment ago.
func TestTheGuestSeesTheHostsChanges(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/share", Mode: harness.ShareWrite}}
	m := harnesstest.Boot(t, spec)
	name := filepath.Join(dir, "file")
	for i := range 20 {
		content := fmt.Sprint("version ", strings.Repeat("x", i))
		if i%2 == 0 {
			write(t, name, content)
		} else { // as editors and compilers do
			write(t, name+".new", content)
			require.NoError(t, os.Rename(name+".new", name))
		}
		require.Equal(t, content, files(t, m, "/share", "cat", "/share/file"))
	}

	// An open file stays the one that it was.
	h := hold(t, m, "/share", "hold", "/share/held")
	require.Equal(t, "held", h.line())
	require.NoError(t, os.Rename(filepath.Join(dir, "held"), filepath.Join(dir, "moved")))
	require.Equal(t, `"held" EOF`, h.again())
	require.NoError(t, os.Remove(filepath.Join(dir, "moved")))
	require.Equal(t, `"held" EOF`, h.again())

	// A file that gets shorter while it is mapped neither hangs the guest nor ends the machine.
	write(t, name, strings.Repeat("\x01", 64<<10))
	mapping := hold(t, m, "/share", "map", "/share/file")
	require.Equal(t, "sum 16", mapping.line())
	require.NoError(t, os.Truncate(name, 0))
	_, err := io.WriteString(mapping.in, "\n")
	require.NoError(t, err)
	line, err := mapping.lines.ReadString('\n')
	t.Logf("after the file got shorter: %q %v", line, err) // its old pages, or SIGBUS as on the host

	// A directory that goes away is empty.
	require.NoError(t, os.RemoveAll(dir))
	require.NotNil(t, m.Machine.Command(t.Context(), "/share/files", "cat", "/share/file").Run())
	out, err := m.Machine.Command(t.Context(), "ls", "/share").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
	m.Shutdown()
}

func TestTheHostsRefusalsReachTheGuest(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/share", Mode: harness.ShareWrite}}
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o666))
	m := harnesstest.Boot(t, spec)
	require.Equal(t, "EPERM", files(t, m, "/share", "mkfifo", "/share/fifo"))
	require.Equal(t, "ENOENT", files(t, m, "/share", "cat", "/share/none"))
	require.Equal(t, "EEXIST", files(t, m, "/share", "mkdir", "/share/files"))
	require.Equal(t, "ok", files(t, m, "/share", "write", "/share/new", "x"))
	require.Equal(t, "ok", files(t, m, "/share", "chmod", "/share/new"))
	require.Regexp(t, `^100711 0:0 1 links, 1 bytes, \d+$`, files(t, m, "/share", "stat", "/share/new"), "without setuid")
	for b := 1; b < 256; b += 7 {
		name := "/share/name " + string([]byte{byte(b)}) + " of bytes"
		if b != '/' {
			require.Equal(t, "ok", files(t, m, "/share", "write", name, "x"), "%q", name)
		}
	}
	out := m.Command("ls", "/share").Output()
	require.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 3+36+1, "%q", out) // one name has a newline
}

// The host's disk is full.
func TestNoSpaceOnTheHostIsNoSpaceInTheGuest(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/share", Mode: harness.ShareWrite}}
	apart.Run(t, func(t *testing.T) {
		m := harnesstest.Boot(t, spec)
		fillDisk(t, 8<<20)
		require.Equal(t, "EFBIG", files(t, m, "/share", "fill", "/share/new", "16"), "the error of this process's limit")
		info, err := os.Stat(filepath.Join(dir, "new"))
		require.NoError(t, err)
		require.EqualValues(t, 8<<20, info.Size())
		require.Equal(t, "ok", files(t, m, "/share", "remove", "/share/new"))
	})
}

// What a program has written is on the host, however the machine ends.
func TestWrittenFilesStay(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for how, end := range map[string]func(*harnesstest.Machine){
		"power-off": (*harnesstest.Machine).Shutdown,
		"kill":      (*harnesstest.Machine).Close,
	} {
		t.Run(how, func(t *testing.T) {
			dir := shared(t, target)
			spec := harnesstest.Platform(t, target)
			spec.Share = []harness.Share{{Host: dir, Guest: "/share", Mode: harness.ShareWrite}}
			m := harnesstest.Boot(t, spec)
			h := hold(t, m, "/share", "hold", "/share/held")
			require.Equal(t, "held", h.line())
			end(m)
			content, err := os.ReadFile(filepath.Join(dir, "held"))
			require.NoError(t, err)
			require.Equal(t, "held", string(content))
		})
	}
}

// The guest walks a large tree, and many shares, one inside another, are mounted at once.
func TestManyFilesAndManyShares(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	const many = 10_000
	for i := range many / 1000 {
		sub := filepath.Join(dir, "tree", fmt.Sprint(i))
		require.NoError(t, os.MkdirAll(sub, 0o777))
		for j := range 1000 {
			f, err := os.Create(filepath.Join(sub, fmt.Sprintf("a name of usual length %d", j)))
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
	}
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/a"}}
	for i := range 10 {
		other := t.TempDir()
		write(t, filepath.Join(other, "number"), fmt.Sprint(i))
		spec.Share = append(spec.Share, harness.Share{Host: other, Guest: fmt.Sprintf("/b/%d", i), Mode: []harness.ShareMode{"ro", "rw", "overlay"}[i%3]})
	}
	spec.Share = append(spec.Share, harness.Share{Host: filepath.Join(dir, "tree/7"), Guest: "/a/tree/8"})
	m := harnesstest.Boot(t, spec)
	for i := range 10 {
		require.Equal(t, fmt.Sprint(i), files(t, m, "/a", "cat", fmt.Sprintf("/b/%d/number", i)))
	}
	ctx, cancel := m.Machine.Within(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := m.Machine.Command(ctx, "/a/files", "count", "/a/tree").Output()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%d files\n", many), string(out))
	m.Shutdown()
}

// A restored machine has a mount of each mode already, which becomes the first share of that mode.
func TestARestoredMachineMovesTheMountsThatItHas(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	cache := &harness.TemplateCache{Dir: t.TempDir()}
	t.Cleanup(cache.Close)
	spec := harnesstest.Platform(t, target)
	spec.From = cache
	program := shared(t, target)
	for restored := range 2 {
		var dirs []string
		spec.Share = []harness.Share{{Host: program, Guest: "/bin/shared"}}
		for i, mode := range []harness.ShareMode{"ro", "overlay", "rw", "rw", "overlay"} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "number"), fmt.Sprint(i))
			dirs = append(dirs, dir)
			spec.Share = append(spec.Share, harness.Share{Host: dir, Guest: fmt.Sprintf("/s/%d", i), Mode: mode})
		}
		m := harnesstest.Boot(t, spec)
		require.Equal(t, []harness.BootMode{harness.BootCold, harness.BootRestored}[restored], m.Result().Boot, m.Result().Why)
		for i, dir := range dirs {
			number := fmt.Sprintf("/s/%d/number", i)
			require.Equal(t, fmt.Sprint(i), files(t, m, "/bin/shared", "cat", number))
			says, content := "", fmt.Sprint(i)
			switch spec.Share[i+1].Mode {
			case harness.ShareReadOnly:
				says = "read-only file system"
			case harness.ShareWrite:
				content = "guest\n"
			}
			out, _ := m.Machine.Command(t.Context(), "sh", "-c", "echo guest >"+number).CombinedOutput()
			require.Contains(t, string(out), says)
			after, err := os.ReadFile(filepath.Join(dir, "number"))
			require.NoError(t, err)
			require.Equal(t, content, string(after))
		}
		require.NotContains(t, m.Command("cat", "/proc/mounts").Output(), "prepared", "all of them are in use")
		m.Close()
	}
}

// A program that is delivered finds its directories when it starts. It is not in a template, because a restored
// program would have started without them.
func TestAProgramStartsInItsShares(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	write(t, filepath.Join(dir, "greeting"), "hello from the host")
	spec := harnesstest.Platform(t, target)
	spec.Program, spec.Args, spec.Ready = filepath.Join(dir, "files"), []string{"cat", "/share/greeting"}, "^hello from the host$"
	spec.Share = []harness.Share{{Host: dir, Guest: "/share"}}
	for i := range 2 {
		m := harnesstest.Boot(t, spec)
		if i > 0 { // the first machine may have made the platform's template
			require.Equal(t, harness.BootDelivered, m.Result().Boot, m.Result().Why)
		}
		require.Equal(t, "its program starts after its shares are mounted", m.Result().Why)
		m.Wait()
	}
}

// Init answers the kernel while it starts a program: neither the thread that forks nor a garbage collection may stop
// that. A part of these machines hung.
func TestInitStartsProgramsFromWhatItServes(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := shared(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/share", Mode: harness.ShareWrite}}
	for range 12 {
		m := harnesstest.Boot(t, spec)
		for range 3 {
			require.Equal(t, "EEXIST", files(t, m, "/share", "mkdir", "/share/files"))
		}
		m.Close()
	}
}

// Init finds its own modules although a share hides them.
func TestAShareMayHideTheKernelsModules(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	image, err := images.Platform(t.Context(), target, images.Options{})
	require.NoError(t, err)
	dir := shared(t, target)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: image.Modules, Guest: "/lib/modules/" + filepath.Base(image.Modules)}, {Host: dir, Guest: "/share", Mode: harness.ShareOverlay}}
	m := harnesstest.Boot(t, spec)
	require.Equal(t, "ok", files(t, m, "/share", "battery", "/share"))
	require.Contains(t, m.Command("ls", spec.Share[0].Guest).Output(), "modules.builtin")
}

func TestAMachineWithSharesIsNotSaved(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: t.TempDir(), Guest: "/share"}}
	spec.Savable = true
	m := harnesstest.Boot(t, spec)
	_, err := m.Machine.Save(t.Context(), filepath.Join(t.TempDir(), "template"))
	require.ErrorContains(t, err, "its guest has mounted directories of the host (/share), and no machine that is restored could read them")
}

// The mount needs a directory of its name in the directory that is mounted around it.
func TestAShareThatCannotBeMountedFailsTheBoot(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	dir := t.TempDir()
	spec := harnesstest.Platform(t, target)
	spec.Share = []harness.Share{{Host: dir, Guest: "/share"}, {Host: dir, Guest: "/share/missing"}}
	_, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), spec))
	require.ErrorContains(t, err, "mount directories of the host: mkdir /share/missing: read-only file system")
	require.ErrorIs(t, err, harness.ErrGuest)
}
