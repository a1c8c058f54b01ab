package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/qcow2"
	"guesthouse.example/internal/apart"
)

// diskFile makes a raw disk of 8 MiB that begins with a line of text.
func diskFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(file, append([]byte(text+"\n"), make([]byte, 8<<20-len(text)-1)...), 0o600))
	return file
}

// diskLine returns the first line of a disk, which the guest reads anew.
func diskLine(m *harnesstest.Machine, name string) string {
	return m.Output("gosh", "-c", fmt.Sprintf("echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/%s", name))
}

// writeLine writes a line at the beginning of a disk. The guest writes its cache when the device is closed.
func writeLine(m *harnesstest.Machine, name, text string) {
	m.Output("gosh", "-c", fmt.Sprintf("echo %s >/dev/%s", text, name))
}

// Every target's kernel has a driver of disks, because programs are delivered by one.
func TestDisksAreThereInEveryBootModeAndTheirFilesStayAsTheyAre(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./guests/shape")
		image := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(image, qcow2.Empty(32<<20), 0o600))
		file := diskFile(t, "from the host")
		before, err := os.ReadFile(file)
		require.NoError(t, err)
		spec.Disks = []harness.Disk{{File: file}, {Size: 64}, {File: image, Format: "qcow2"}}
		boots := inTwoBootModes
		if target == oneTarget(t) {
			boots = inEveryBootMode
		}
		boots(t, spec, func(machine *harness.Machine) {
			output := func(script string) string {
				ctx, cancel := machine.Within(t.Context(), harnesstest.Within)
				defer cancel()
				out, err := machine.Command(ctx, "gosh", "-c", script).Output()
				require.NoError(t, err)
				return string(out)
			}
			for i, d := range []struct{ name, sectors string }{{"vda", "16384"}, {"vdb", "131072"}, {"vdc", "65536"}} {
				require.Equal(t, fmt.Sprintf("disk%d", i), output("cat /sys/block/"+d.name+"/serial"))
				require.Equal(t, d.sectors+"\n", output("cat /sys/block/"+d.name+"/size"))
			}
			require.Equal(t, "from the host\n", output("head -n 1 /dev/vda"))
			for _, name := range []string{"vda", "vdb", "vdc"} {
				require.Equal(t, "from the guest\n", output("echo from the guest >/dev/"+name+"; echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/"+name))
			}
		})
		after, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "the file stays as it was")
	})
}

func TestQEMUReadsAndWritesEmptyImages(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Platform(t, oneTarget(t))
	sizes := []int64{512, 5<<29 + 512, qcow2.MaxSize}
	for _, size := range sizes {
		image := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(image, qcow2.Empty(size), 0o600))
		spec.Disks = append(spec.Disks, harness.Disk{File: image, Format: "qcow2", Write: true})
	}
	m := harnesstest.Boot(t, spec)
	for i, size := range sizes {
		name := fmt.Sprintf("vd%c", 'a'+i)
		require.Equal(t, fmt.Sprintf("%d\n", size/512), m.Output("cat", "/sys/block/"+name+"/size"))
		last := min(size, 1<<40)/512 - 1 // more is too much for the page cache of 32-bit kernels
		text := fmt.Sprintf("%-511s\n", name)
		require.Equal(t, text, m.Output("gosh", "-c", fmt.Sprintf(
			"printf '%%-511s\\n' %[1]s | dd of=/dev/%[1]s bs=512 seek=%[2]d; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/%[1]s bs=512 skip=%[2]d count=1", name, last)))
	}
}

func TestATemplateHasWhatTheGuestHadWrittenToItsDisks(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Spec(t, oneTarget(t), "./guests/shape")
	file := diskFile(t, "from the host")
	spec.Disks = []harness.Disk{{File: file}, {Size: 64}}
	spec.Accel, spec.From = harness.TCG, harness.Cold
	first := harnesstest.Boot(t, spec)
	writeLine(first, "vdb", "first")
	saved := first.Save(filepath.Join(t.TempDir(), "first"))
	writeLine(first, "vdb", "later")
	require.Equal(t, "later\n", diskLine(first, "vdb"))

	spec.From, spec.Savable = saved, true
	second := restored(t, spec)
	require.Equal(t, "from the host\n", diskLine(second, "vda"))
	require.Equal(t, "first\n", diskLine(second, "vdb"))
	writeLine(second, "vda", "second")
	again := second.Save(filepath.Join(t.TempDir(), "second"))
	require.NoError(t, os.RemoveAll(saved.Dir()), "a template does not need the one that it was restored from")

	spec.From, spec.Savable = again, false
	for range 2 {
		third := restored(t, spec)
		require.Equal(t, "second\n", diskLine(third, "vda"))
		require.Equal(t, "first\n", diskLine(third, "vdb"))
		writeLine(third, "vdb", "third")
		require.Equal(t, "third\n", diskLine(third, "vdb"))
		third.Close()
	}

	// A copy of the template is as good, until its content is another.
	opened, err := harness.OpenTemplate(again.Dir())
	require.NoError(t, err)
	spec.From = opened
	require.Equal(t, "second\n", diskLine(restored(t, spec), "vda"))
	layer := filepath.Join(again.Dir(), "disk0.0")
	content, err := os.ReadFile(layer)
	require.NoError(t, err)
	content[len(content)-1]++
	require.NoError(t, os.WriteFile(layer, content, 0o600))
	_, err = harness.OpenTemplate(again.Dir())
	require.ErrorContains(t, err, "disk0.0 is damaged")

	// Nor does a template fit another content of the file.
	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 8<<20), 0o600))
	spec.From = again
	m := harnesstest.Boot(t, spec)
	require.Equal(t, harness.BootCold, m.Result().Boot)
	require.Equal(t, "the template was saved with another disk, or another content of a disk's file", m.Result().Why)
}

func TestAGuestWritesToTheFileOfADiskIfTheSpecSaysSo(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/shape")
	file := diskFile(t, "from the host")
	spec.Disks = []harness.Disk{{File: file, Write: true}}
	m := harnesstest.Boot(t, spec)
	require.Equal(t, harness.BootCold, m.Result().Boot)
	require.Equal(t, "it writes to the file of a disk", m.Result().Why)
	writeLine(m, "vda", "from the guest")

	for _, writes := range []bool{true, false} {
		other := spec
		other.Disks = []harness.Disk{{File: file, Write: writes}}
		_, err := harness.Boot(t.Context(), other)
		require.EqualError(t, err, "boot: disk 0, "+file+": another machine writes to the file")
	}
	m.Shutdown()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "from the guest\n", string(content[:len("from the guest\n")]))

	// While a machine reads the file, no other may write to it.
	spec.Disks[0].Write = false
	reader := harnesstest.Boot(t, spec)
	require.Equal(t, "from the guest\n", diskLine(reader, "vda"))
	spec.Disks[0].Write = true
	_, err = harness.Boot(t.Context(), spec)
	require.ErrorContains(t, err, "another machine uses the file and does not share it")
}

// The guest gets an error for a request that the host has no space for, and the machine goes on.
func TestAGuestSurvivesAHostWithoutSpaceForItsDisks(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	apart.Run(t, func(t *testing.T) {
		spec := harnesstest.Spec(t, target, "./guests/shape")
		spec.From, spec.Disks = harness.Cold, []harness.Disk{{Size: 64}}
		fillDisk(t, 1<<20)
		m, err := harness.Boot(t.Context(), spec)
		require.NoError(t, err)
		defer m.Close()
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		require.NoError(t, m.Console().Send(ctx, "fill"))
		match, err := m.Console().Expect(ctx, `block (\d+): write /dev/vda: (.*)`)
		require.NoError(t, err)
		require.Equal(t, "input/output error", match[2])
		require.NotEqual(t, "0", match[1], "the first megabyte has room")
		require.Less(t, len(match[1]), 4, "64 MiB have 1024 blocks")
		out, err := m.Command(ctx, "cat", "/sys/block/vda/serial").Output()
		require.NoError(t, err)
		require.Equal(t, "disk0", string(out))
	})
}
