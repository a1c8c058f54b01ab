package images

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
)

// The test binary can also run as a fake apt-get and apt-cache, with the faults of a mirror, and
// as a process that the test kills while it fetches.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "apt-get":
		os.Exit(fakeAptGet(os.Args[1:]))
	case "apt-cache":
		os.Exit(fakeAptCache(os.Args[1:]))
	}
	os.Exit(m.Run())
}

const fakeEnv = "GUESTHOUSE_TEST_FAKE_APT" // a directory with mirror.json

// A mirror is what the fake apt offers.
type mirror struct {
	UpdateSays string // the error message of a failed update; "" succeeds
	Packages   []fakePackage
	// Download selects how a download behaves. "" succeeds. "cut" leaves half a file
	// and succeeds. "hang" stops half way and never ends. Any other text is the error
	// message of a failed download.
	Download string

	dir string
}

type fakePackage struct {
	imagecache.Deb
	Depends string
	File    string
}

func (m *mirror) save(t *testing.T) {
	t.Helper()
	data, err := json.Marshal(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "mirror.json"), data, 0o666))
}

// calls counts the calls of apt with a verb.
func (m *mirror) calls(t *testing.T, verb string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "calls"))
	if os.IsNotExist(err) {
		return 0
	}
	require.NoError(t, err)
	return strings.Count(string(data), verb+"\n")
}

// hanging waits until apt-get hangs. The function that it returns waits until that apt-get has
// ended.
func (m *mirror) hanging(t *testing.T) (gone func()) {
	t.Helper()
	type opened struct {
		f   *os.File
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		// Open waits until apt-get opens the other end, and a read until it closes that end.
		f, err := os.Open(filepath.Join(m.dir, "fifo"))
		ch <- opened{f, err}
	}()
	var o opened
	select {
	case o = <-ch:
	case <-t.Context().Done():
		t.Fatal("apt-get was never called")
	}
	require.NoError(t, o.err)
	return func() {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, o.f)
			done <- err
		}()
		select {
		case err := <-done:
			require.NoError(t, err)
			o.f.Close()
		case <-within(t):
			t.Fatal("apt-get has outlived its parent")
		}
	}
}

func loadMirror() (*mirror, error) {
	m := &mirror{dir: os.Getenv(fakeEnv)}
	data, err := os.ReadFile(filepath.Join(m.dir, "mirror.json"))
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(data, m)
}

// verb skips the options. Each of them but -q has a value.
func verb(args []string) []string {
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-q":
		case "-c", "-o":
			i++
		default:
			return args[i:]
		}
	}
	return nil
}

func (m *mirror) note(verb string) error {
	f, err := os.OpenFile(filepath.Join(m.dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, verb)
	return err
}

func fakeAptGet(args []string) int {
	m, err := loadMirror()
	args = verb(args)
	if err == nil {
		err = m.note(args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if args[0] == "update" {
		if m.UpdateSays != "" {
			fmt.Fprintln(os.Stderr, m.UpdateSays)
			return 100
		}
		return 0
	}
	name, version, _ := strings.Cut(args[1], "=")
	for _, p := range m.Packages {
		if p.Package != name || p.Version != version {
			continue
		}
		data, err := os.ReadFile(p.File)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dst := filepath.Base(p.File)
		switch m.Download {
		case "":
		case "cut":
			data = data[:len(data)/2]
		case "hang":
			_ = os.WriteFile(dst, data[:len(data)/2], 0o666)
			_, err := os.OpenFile(filepath.Join(m.dir, "fifo"), os.O_WRONLY, 0)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			forever := make(chan os.Signal, 1)
			signal.Notify(forever, unix.SIGUSR1)
			<-forever
		default:
			fmt.Fprintln(os.Stderr, m.Download)
			return 100
		}
		if err := os.WriteFile(dst, data, 0o666); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	fmt.Fprintln(os.Stderr, "E: Version not found")
	return 100
}

func fakeAptCache(args []string) int {
	m, err := loadMirror()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	args = verb(args)
	if args[0] == "pkgnames" {
		for _, p := range m.Packages {
			if strings.HasPrefix(p.Package, args[1]) {
				fmt.Println(p.Package)
			}
		}
		return 0
	}
	args = args[1:]
	one := args[0] == "--no-all-versions"
	if one {
		args = args[1:]
	}
	any := false
	for _, name := range args {
		found := false
		for _, p := range m.Packages {
			if p.Package == name && !(one && found) {
				found, any = true, true
				fmt.Printf("Package: %s\nVersion: %s\nDepends: %s\nDescription: fake\n with a second line\nSize: %d\nSHA256: %s\n\n",
					p.Package, p.Version, p.Depends, p.Size, p.SHA256)
			}
		}
	}
	if !any {
		fmt.Fprintln(os.Stderr, "E: No packages found")
		return 100
	}
	return 0
}

const fakeRelease = "1.2.3-fake"

var fakeTarget = target.Target{
	Name: "fake", GOARCH: "amd64", DebianArch: "amd64", KernelPackage: "linux-image-fake", Modules: []string{"virtio_net"},
}

// fakeMirror puts a fake apt into PATH that offers a metapackage and a kernel. It
// returns the kernel's packages, for use as the tested ones.
func fakeMirror(t *testing.T) (*mirror, imagecache.KernelSet) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("the packages are built with dpkg-deb: ", err)
	}
	m := &mirror{dir: t.TempDir()}
	self, err := os.Executable()
	require.NoError(t, err)
	bin := filepath.Join(m.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o777))
	for _, name := range []string{"apt-get", "apt-cache"} {
		require.NoError(t, os.Symlink(self, filepath.Join(bin, name)))
	}
	require.NoError(t, unix.Mkfifo(filepath.Join(m.dir, "fifo"), 0o666))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(fakeEnv, m.dir)
	kernel := m.kernelPackage(t, "linux-image-1-fake", "1.2.3-1", "", nil)
	m.Packages = []fakePackage{
		{Deb: imagecache.Deb{Package: "linux-image-fake", Version: "1.2.3-1", SHA256: strings.Repeat("0", 64)},
			Depends: "linux-image-1-fake (= 1.2.3-1)"},
		kernel,
	}
	m.save(t)
	return m, imagecache.KernelSet{kernel.Deb}
}

// kernelPackage builds a package of files. If files is nil, they are those of a whole kernel.
func (m *mirror) kernelPackage(t *testing.T, name, version, depends string, files map[string][]byte) fakePackage {
	t.Helper()
	if files == nil {
		files = fakeKernelFiles()
	}
	root := t.TempDir()
	files["DEBIAN/control"] = fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody\nDescription: fake\n", name, version)
	for path, data := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), data, 0o644))
	}
	file := filepath.Join(m.dir, name+"_"+version+".deb")
	out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", root, file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	info, err := os.Stat(file)
	require.NoError(t, err)
	sum, err := imagecache.HashFile(file)
	require.NoError(t, err)
	return fakePackage{Deb: imagecache.Deb{Package: name, Version: version, SHA256: sum, Size: info.Size()}, Depends: depends, File: file}
}

func fakeKernelFiles() map[string][]byte {
	lib := "lib/modules/" + fakeRelease + "/"
	return map[string][]byte{
		"boot/vmlinuz-" + fakeRelease:              bytes.Repeat([]byte("kernel "), 1000),
		"boot/config-" + fakeRelease:               []byte("CONFIG_NOTHING=y\n"),
		lib + "kernel/drivers/net/virtio-net.ko":   fakeModule("virtio"),
		lib + "kernel/drivers/virtio/unrelated.ko": fakeModule(""),
		lib + "modules.builtin":                    []byte("kernel/drivers/virtio/virtio.ko\nkernel/fs/ext9.ko\n"),
	}
}

// fakeModule returns the smallest ELF file that has a .modinfo.
func fakeModule(depends string) []byte {
	info := "license=GPL\x00depends=" + depends + "\x00vermagic=" + fakeRelease + " SMP mod_unload\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64,
		Shoff: uint64(64 + len(info) + len(names)), Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))},
	}
	// Writing to memory does not fail.
	_ = binary.Write(&b, binary.LittleEndian, header)
	b.WriteString(info + names)
	_ = binary.Write(&b, binary.LittleEndian, sections)
	return b.Bytes()
}
