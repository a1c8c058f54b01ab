package template

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/internal/regular"
)

var machine = Identity{Format: Format, Target: "arm64", QEMU: "qemu", Args: []string{"-m", "4"}, Kernel: "1", Initramfs: "2", Ready: "ready", Outbound: "none"}

// ram returns a file with bytes here and there, and with a block of zeros.
func ram(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	require.NoError(t, f.Truncate(4<<20))
	for _, at := range []int64{0, 12345, 1 << 20, 4<<20 - 1} {
		_, err := f.WriteAt([]byte{byte(at) | 1}, at)
		require.NoError(t, err)
	}
	_, err = f.WriteAt(make([]byte, blockSize), 2<<20)
	require.NoError(t, err)
	return f
}

// saved writes a template into a directory.
func saved(t *testing.T, dir string) *Template {
	t.Helper()
	w := NewWriter(dir)
	state, err := w.CreateState()
	require.NoError(t, err)
	_, err = state.WriteString("the devices")
	require.NoError(t, err)
	require.NoError(t, state.Close())
	require.NoError(t, w.CloseState())
	require.NoError(t, w.CopyRAM(t.Context(), ram(t)))
	var log console.State
	log.Log = []byte("x")
	require.NoError(t, w.Close(Description{Of: machine, Version: "10.0.0", Saved: time.Now(),
		Console: log, Agent: &agent.Saved{Epoch: 3}}))
	opened, err := Open(dir)
	require.NoError(t, err)
	return opened
}

func openFiles(t *Template) error {
	ram, state, err := t.OpenFiles()
	if err == nil {
		ram.Close()
		state.Close()
	}
	return err
}

func TestOpenReadsWhatAWriterWrote(t *testing.T) {
	template := saved(t, t.TempDir())
	require.Equal(t, machine, template.Of)
	require.Equal(t, "10.0.0", template.Version)
	require.EqualValues(t, 3, template.Agent.Epoch)
	require.Equal(t, "x", string(template.Console.Log))
	require.NoError(t, template.Verify())
	memory, state, err := template.OpenFiles()
	require.NoError(t, err)
	defer memory.Close()
	defer state.Close()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", state.Fd()))
	require.NoError(t, err)
	require.Equal(t, "the devices", string(text))
	at, err := state.Seek(0, 1)
	require.NoError(t, err)
	require.Zero(t, at, "QEMU reads the state from its beginning")
	for _, file := range template.Files() {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), file)
	}
}

func TestMemoryIsCopiedWithItsHoles(t *testing.T) {
	original := ram(t)
	file := filepath.Join(t.TempDir(), ramName)
	stat, err := copySparse(t.Context(), file, original)
	require.NoError(t, err)
	require.EqualValues(t, 4<<20, stat.Size)

	want, err := os.ReadFile(original.Name())
	require.NoError(t, err)
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, string(want) == string(got), "every byte is the same")

	again, err := os.Open(file)
	require.NoError(t, err)
	defer again.Close()
	var blocks []int64
	require.NoError(t, dataBlocks(again, 0, stat.Size, func(at int64, _ []byte) error {
		blocks = append(blocks, at)
		return nil
	}))
	require.Equal(t, []int64{0, 1 << 20, 4<<20 - blockSize}, blocks)
	sums, err := sumBlocks(t.Context(), again, stat.Size, nil)
	require.NoError(t, err)
	require.Equal(t, stat.SHA256, sums.String())
}

// Every template has the hash of its memory, so a change of the hash refuses all older templates.
func TestTheHashOfMemoryIsFixed(t *testing.T) {
	stat, err := copySparse(t.Context(), filepath.Join(t.TempDir(), ramName), ram(t))
	require.NoError(t, err)
	require.Equal(t, "e631536e", stat.SHA256[:8])
}

// Several goroutines read a large file.
func TestDamageIsFoundInEverySegment(t *testing.T) {
	const size = 3*segmentSize + 12345
	original, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	require.NoError(t, err)
	defer original.Close()
	require.NoError(t, original.Truncate(size))
	places := []int64{0, segmentSize - 1, segmentSize, 2*segmentSize + blockSize, size - 1}
	for _, at := range places {
		_, err := original.WriteAt([]byte{1}, at)
		require.NoError(t, err)
	}
	file := filepath.Join(t.TempDir(), ramName)
	saved, err := copySparse(t.Context(), file, original)
	require.NoError(t, err)
	want, err := os.ReadFile(original.Name())
	require.NoError(t, err)
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, string(want) == string(got), "every byte is the same")

	loaded, err := os.Create(filepath.Join(t.TempDir(), "loaded"))
	require.NoError(t, err)
	defer loaded.Close()
	require.NoError(t, loaded.Truncate(size))
	require.NoError(t, LoadRAM(t.Context(), loaded, original))
	got, err = os.ReadFile(loaded.Name())
	require.NoError(t, err)
	require.True(t, string(want) == string(got), "every byte is the same")

	for _, at := range append(places, 1000, 3*segmentSize) {
		for _, b := range []byte{2, want[at]} {
			_, err := original.WriteAt([]byte{b}, at)
			require.NoError(t, err)
			sums, err := sumBlocks(t.Context(), original, size, nil)
			require.NoError(t, err)
			require.Equal(t, b == want[at], sums.String() == saved.SHA256, "byte %d is %d", at, b)
		}
	}
}

func TestFaultsOfATemplate(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"no description":      {func(dir string) error { return os.Remove(filepath.Join(dir, descriptionName)) }, "no such file"},
		"half a description":  {func(dir string) error { return os.Truncate(filepath.Join(dir, descriptionName), 10) }, "template.json: "},
		"no memory":           {func(dir string) error { return os.Remove(filepath.Join(dir, ramName)) }, "no such file"},
		"other memory":        {func(dir string) error { return write(filepath.Join(dir, ramName), 5) }, "ram is damaged: it has 4194304 bytes of 4194304"},
		"half the memory":     {func(dir string) error { return os.Truncate(filepath.Join(dir, ramName), 2<<20) }, "ram is damaged: it has 2097152 bytes of 4194304"},
		"no device state":     {func(dir string) error { return os.Remove(filepath.Join(dir, stateName)) }, "no such file"},
		"other device state":  {func(dir string) error { return write(filepath.Join(dir, stateName), 5) }, "state is damaged: it has 11 bytes of 11"},
		"memory of all users": {func(dir string) error { return os.Chmod(filepath.Join(dir, ramName), 0o666) }, "can be written by other users"},
		"state of a group":    {func(dir string) error { return os.Chmod(filepath.Join(dir, stateName), 0o660) }, "can be written by other users"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			saved(t, dir)
			require.NoError(t, c.damage(dir))
			template, err := Open(dir)
			if err == nil {
				err = openFiles(template)
			}
			require.ErrorContains(t, err, c.want)
			require.True(t, IsFault(err), "%v", err)
			if template != nil {
				require.ErrorContains(t, template.Verify(), c.want)
			}
		})
	}
}

func write(file string, at int64) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("!"), at)
	return err
}

func TestAFileOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the owner of a file")
	}
	dir := t.TempDir()
	template := saved(t, dir)
	require.NoError(t, os.Chown(filepath.Join(dir, ramName), 12345, -1))
	err := openFiles(template)
	require.ErrorContains(t, err, "ram belongs to another user, whose number is 12345")
	require.True(t, IsFault(err))
}

// The error of opening a file that is not regular is no Fault.
func TestAnErrorOfTheHostIsNoFault(t *testing.T) {
	dir := t.TempDir()
	template := saved(t, dir)
	require.NoError(t, os.Remove(filepath.Join(dir, ramName)))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, ramName), 0o600))
	err := openFiles(template)
	require.ErrorIs(t, err, regular.ErrOther)
	require.False(t, IsFault(err))
}

func TestACopyIsReadOnceAndThenTrusted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	original := saved(t, t.TempDir())
	require.NoError(t, os.CopyFS(dir, os.DirFS(original.Dir())))
	for _, file := range original.Files() {
		require.NoError(t, os.Chmod(filepath.Join(dir, filepath.Base(file)), 0o600))
	}
	template, err := Open(dir)
	require.NoError(t, err)
	before := template.RAM.State
	require.NoError(t, template.Verify())
	require.NotEqual(t, before, template.RAM.State)
	require.NoError(t, openFiles(template))
}

func TestATemplateFitsOnlyTheSameMachine(t *testing.T) {
	template := saved(t, t.TempDir())
	require.NoError(t, template.Fits(machine))
	for part, change := range map[string]func(*Identity){
		"format":        func(id *Identity) { id.Format++ },
		"target":        func(id *Identity) { id.Target = "arm" },
		"QEMU":          func(id *Identity) { id.QEMU = "another" },
		"kernel":        func(id *Identity) { id.Kernel = "another" },
		"initramfs":     func(id *Identity) { id.Initramfs = "" },
		"ready pattern": func(id *Identity) { id.Ready = "login:" },
		"Outbound":      func(id *Identity) { id.Outbound = "internet" },
		"memory, processors, devices, network or command line": func(id *Identity) { id.Args = []string{"-m", "5"} },
	} {
		other := machine
		change(&other)
		err := template.Fits(other)
		require.EqualError(t, err, "the template was saved with another "+part)
		require.True(t, IsFault(err))
		one, err := Key(machine, false)
		require.NoError(t, err)
		another, err := Key(other, false)
		require.NoError(t, err)
		require.NotEqual(t, one, another)
	}
}
