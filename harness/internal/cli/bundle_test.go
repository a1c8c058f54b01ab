package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// A home is the environment of one user of the command, with a cache and a directory of its own.
type home struct{ cache, dir string }

func (h home) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	command := filepath.Join(t.TempDir(), "guesthouse")
	require.NoError(t, os.Symlink(self, command))
	cmd := exec.CommandContext(t.Context(), command, args...)
	compiled, err := exec.Command("go", "env", "GOCACHE").Output() // Go's own, which is no part of this
	require.NoError(t, err)
	cmd.Dir, cmd.Env = h.dir, append(os.Environ(), "XDG_CACHE_HOME="+h.cache, "PWD="+h.dir, "GOCACHE="+strings.TrimSpace(string(compiled)))
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// stranger returns the home of a user with an empty cache and no Go module.
func stranger(t *testing.T) home { return home{t.TempDir(), t.TempDir()} }

// colleague returns the home of a user in this module whose cache lacks only the initramfs, because
// the rest takes long to make.
func colleague(t *testing.T) home {
	t.Helper()
	full, err := os.UserCacheDir()
	require.NoError(t, err)
	module, err := os.Getwd()
	require.NoError(t, err)
	h := home{t.TempDir(), module}
	require.NoError(t, os.Mkdir(filepath.Join(h.cache, "guesthouse"), 0o700))
	for _, kept := range []string{"kernels", "busybox"} {
		require.NoError(t, os.Symlink(filepath.Join(full, "guesthouse", kept), filepath.Join(h.cache, "guesthouse", kept)))
	}
	return h
}

// ourRun makes the record of a run in this module, and returns its directory and its Spec.
func ourRun(t *testing.T) (dir string, spec harness.Spec) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "record")
	status, _, stderr := call(t, "run", "-target", anyTarget, "-dir", dir)
	require.Equal(t, 0, status, stderr)
	spec, err := harness.ReadSpec(filepath.Join(dir, "spec.json"))
	require.NoError(t, err)
	return dir, spec
}

func writeSpec(t *testing.T, spec harness.Spec) (file string) {
	t.Helper()
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "spec.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

const boots = "Single-threaded TCP/UDP echo server waits for a connection on port 4242"

func TestABundleBootsElsewhere(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	record, spec := ourRun(t)
	require.Regexp(t, `^linux-image-\S+ \S+$`, spec.Origin.KernelPackage)
	require.Equal(t, "guesthouse.example/guest/cmd/uinit", spec.Origin.Guest)

	// The recorded -outbound does not apply on this host.
	spec.Outbound = harness.OutboundHost
	require.NoError(t, os.Rename(writeSpec(t, spec), filepath.Join(record, "spec.json")))

	file := filepath.Join(t.TempDir(), "a bundle")
	for _, name := range []string{file, file + " again"} {
		status, stdout, stderr := call(t, "bundle", "-o", name, record)
		require.Equal(t, 0, status, stderr)
		require.Equal(t, name+"\n", stdout)
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	bundle, err := os.ReadFile(file)
	require.NoError(t, err)
	again, err := os.ReadFile(file + " again")
	require.NoError(t, err)
	require.True(t, bytes.Equal(bundle, again), "the same record gives the same bytes")
	require.NoError(t, os.RemoveAll(record))

	elsewhere := stranger(t)
	replayed := filepath.Join(elsewhere.dir, "replayed")
	stdout, stderr, err := elsewhere.run(t, "run", "-spec", file, "-dir", replayed)
	require.NoError(t, err, stderr)
	require.Contains(t, stdout, boots)
	require.Contains(t, stderr, "guesthouse: the recorded run had -outbound host, and this run has none: give -outbound host to allow the guest the same\n")
	there, err := harness.ReadSpec(filepath.Join(replayed, "spec.json"))
	require.NoError(t, err)
	require.Equal(t, spec.Origin, there.Origin)
	require.Equal(t, harness.OutboundNone, there.Outbound)
	require.True(t, strings.HasPrefix(there.Kernel, elsewhere.cache+"/"), "it boots its own files: %s", there.Kernel)
	require.True(t, strings.HasPrefix(there.Initramfs, elsewhere.cache+"/"), "it boots its own files: %s", there.Initramfs)
	require.True(t, strings.HasPrefix(there.Program, elsewhere.cache+"/"), "it boots its own files: %s", there.Program)

	// The cache now has the files, so the record of another home boots too.
	spec.Kernel, spec.Initramfs, spec.Program = "/nonexistent/kernel", "/nonexistent/initramfs", "/nonexistent/program"
	stdout, stderr, err = elsewhere.run(t, "run", "-spec", writeSpec(t, spec))
	require.NoError(t, err, stderr)
	require.Contains(t, stdout, boots)

	for name, c := range map[string]struct {
		file []byte
		says string
	}{
		"half":     {bundle[:len(bundle)/2], "the file is truncated: copy it again"},
		"all but":  {bundle[:len(bundle)-len(bundle)/3], "the file is truncated: copy it again"},
		"begun":    {bundle[:10], "the file is truncated: copy it again"},
		"no spec":  {archive(t, "../evil", "no spec"), `"../evil" is in the place of spec.json: this file is not the bundle of a record`},
		"empty":    {archive(t), "spec.json is missing"},
		"spec":     {archive(t, "spec.json", "{"), "spec.json: unexpected EOF"},
		"field":    {archive(t, "spec.json", `{"nosuch": 1}`), `spec.json: json: unknown field "nosuch"`},
		"qemu":     {archive(t, "spec.json", `{"qemu": "/bin/evil"}`), "the recorded run chose its own QEMU program or arguments"},
		"args":     {archive(t, "spec.json", `{"qemu_args": ["-hda", "/dev/sda"]}`), "the recorded run chose its own QEMU program or arguments"},
		"host":     {archive(t, "spec.json", `{"kernel": "/etc/passwd", "origin": {}}`), "it does not name the files of the bundle"},
		"program":  {archive(t, "spec.json", `{"kernel": "kernel", "initramfs": "initramfs", "program": "/bin/sh", "origin": {}}`), "it does not name the files of the bundle"},
		"loader":   {archive(t, "spec.json", `{"kernel": "kernel", "loaders": [{"file": "/etc/passwd"}], "origin": {"loader_sha256": ["`+sumOfX+`"]}}`), "it does not name the files of the bundle"},
		"loaders":  {archive(t, "spec.json", `{"kernel": "kernel", "loaders": [{"file": "loader0"}], "origin": {}}`), "it does not name the files of the bundle"},
		"kernel":   {archive(t, "spec.json", `{"kernel": "kernel", "origin": {}}`, "initramfs", ""), `"initramfs" is in the place of kernel`},
		"hash":     {archive(t, "spec.json", `{"kernel": "kernel", "origin": {"kernel_sha256": "../../evil"}}`, "kernel", "x"), "../../evil: not a SHA-256"},
		"tampered": {archive(t, "spec.json", `{"kernel": "kernel", "origin": {"kernel_sha256": "`+strings.Repeat("0", 64)+`"}}`, "kernel", "x"), "its SHA-256 is 2d71164"},
	} {
		bad := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(bad, c.file, 0o600))
		empty := stranger(t)
		_, stderr, err := empty.run(t, "run", "-spec", bad)
		require.Error(t, err, name)
		require.Contains(t, stderr, "guesthouse: error: bundle "+bad+": ", name)
		require.Contains(t, stderr, c.says, name)
		left, err := filepath.Glob(filepath.Join(empty.cache, "guesthouse", "initramfs", "*"))
		require.NoError(t, err)
		require.Empty(t, left, name)
	}
}

// sumOfX is the SHA-256 of "x".
const sumOfX = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

// The files of loaders are in the record, the bundle and the cache of the other host, as the kernel is.
func TestABundleHasTheFilesOfLoaders(t *testing.T) {
	harnesstest.Require(t, "x86")
	dir := t.TempDir()
	kernel, text, record, file := filepath.Join(dir, "kernel"), filepath.Join(dir, "te@xt"), filepath.Join(dir, "record"), filepath.Join(dir, "bundle")
	require.NoError(t, os.WriteFile(kernel, baremetal.Prints(0x200000), 0o644))
	require.NoError(t, os.WriteFile(text, []byte("loaded from a file\r\n\x00"), 0o644))
	status, stdout, stderr := call(t, "run", "-board", "zephyr/qemu_x86", "-loader", text+"@0x200000", "-ready", "^loaded from", "-cold", "-dir", record, kernel)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "loaded from a file")
	status, _, stderr = call(t, "bundle", "-o", file, record)
	require.Equal(t, 0, status, stderr)

	require.NoError(t, os.Remove(text))
	elsewhere := stranger(t)
	for _, spec := range []string{file, filepath.Join(record, "spec.json")} { // the cache has the file of the second
		stdout, stderr, err := elsewhere.run(t, "run", "-spec", spec, "-cold")
		require.NoError(t, err, stderr)
		require.Contains(t, stdout, "loaded from a file")
	}
	status, _, stderr = call(t, "bundle", "-o", file, "-cache", t.TempDir(), record)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "the file "+text+" of a loader, SHA-256 ")
}

// archive is a tar archive, compressed with zstd, of names and contents in turn.
func archive(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	for ; len(files) > 0; files = files[2:] {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: files[0], Size: int64(len(files[1])), Mode: 0o644}))
		_, err := io.WriteString(w, files[1])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

// On a host with the guest's sources, the spec.json alone is enough. Its kernel is the tested one,
// and a new build gives the same initramfs.
func TestARecordOfAnotherHomeIsBuiltAgain(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	_, spec := ourRun(t)
	here := colleague(t)
	spec.Kernel, spec.Initramfs, spec.Program = "/nonexistent/kernel", "/nonexistent/initramfs", "/nonexistent/program"
	stdout, stderr, err := here.run(t, "run", "-spec", writeSpec(t, spec))
	require.NoError(t, err, stderr)
	require.Contains(t, stdout, boots)
	built, err := filepath.Glob(filepath.Join(here.cache, "guesthouse", "initramfs", "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(here.cache, "guesthouse", "initramfs", spec.Origin.InitramfsSHA256+".cpio")}, built)
	require.FileExists(t, filepath.Join(here.cache, "guesthouse", "programs", spec.Origin.ProgramSHA256))

	// Other sources, here those of another guest, give another program.
	here = colleague(t)
	spec.Origin.Guest = "guesthouse.example/harness/integration/guests/fails"
	_, stderr, err = here.run(t, "run", "-spec", writeSpec(t, spec))
	require.Error(t, err)
	require.Contains(t, stderr, "guesthouse: error: the program /nonexistent/program, SHA-256 "+spec.Origin.ProgramSHA256+
		": no such file, it is not in the cache, and the sources of "+spec.Origin.Guest+" on this host give another program, SHA-256 ")
	require.Contains(t, stderr, "guesthouse: hint: on the host of the run, use guesthouse bundle RECORD; then give the bundle to run -spec\n")

	// If the host has neither the file nor the sources, the error says what is missing, and the hint
	// how to get it.
	spec.Origin.KernelPackage = ""
	_, stderr, err = stranger(t).run(t, "run", "-spec", writeSpec(t, spec))
	require.Error(t, err)
	require.Contains(t, stderr, "guesthouse: error: the kernel /nonexistent/kernel, SHA-256 "+spec.Origin.KernelSHA256+": no such file, and it is not in the cache\n")
	require.Contains(t, stderr, "guesthouse: hint: on the host of the run, use guesthouse bundle RECORD; then give the bundle to run -spec\n")
}

// A Spec that a user writes by hand names the files without their hashes. The record has the hashes.
func TestTheRecordOfAnyRunHasTheHashesOfItsFiles(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	_, spec := ourRun(t)
	origin := *spec.Origin
	for _, said := range []*harness.Origin{nil, {KernelSHA256: origin.KernelSHA256, Guest: "another/guest"}} {
		spec.Origin = said
		spec.Dir, spec.From = t.TempDir(), new(harness.TemplateCache)
		m, err := harness.Boot(t.Context(), spec)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		recorded, err := harness.ReadSpec(filepath.Join(spec.Dir, "spec.json"))
		require.NoError(t, err)
		require.Equal(t, &harness.Origin{KernelSHA256: origin.KernelSHA256, InitramfsSHA256: origin.InitramfsSHA256, ProgramSHA256: origin.ProgramSHA256}, recorded.Origin)
		require.Regexp(t, `^\d+\.\d+\.\d+`, m.Result().QEMU)
	}
}

func TestBundleRefusesADirectoryThatIsNotARecord(t *testing.T) {
	status, _, stderr := call(t, "bundle", t.TempDir())
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "no spec.json in it: name the record directory of a run")
	status, _, stderr = call(t, "bundle")
	require.Equal(t, 2, status)
	require.Contains(t, stderr, "bundle: want one record directory, got 0 arguments")
}
