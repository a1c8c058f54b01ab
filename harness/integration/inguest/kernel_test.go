//go:build inguest

package inguest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

func TestTheFileSystemsOfKernelTestsAreMounted(t *testing.T) {
	for dir, magic := range map[string]int64{
		"/proc": unix.PROC_SUPER_MAGIC, "/sys": unix.SYSFS_MAGIC, "/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC,
		"/sys/fs/bpf": unix.BPF_FS_MAGIC, "/sys/kernel/tracing": unix.TRACEFS_MAGIC, "/sys/kernel/debug": unix.DEBUGFS_MAGIC,
		"/dev/pts": unix.DEVPTS_SUPER_MAGIC, "/tmp": unix.TMPFS_MAGIC, "/run": unix.TMPFS_MAGIC, "/dev/hugepages": unix.HUGETLBFS_MAGIC,
	} {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &st), dir)
		require.EqualValues(t, magic, st.Type, dir)
	}
}

func TestAnOverlayIsMounted(t *testing.T) {
	dir := t.TempDir()
	for _, part := range []string{"lower", "upper", "work", "all"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, part), 0o777))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lower/file"), []byte("below"), 0o666))
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	require.NoError(t, unix.Mount("overlay", dir+"/all", "overlay", 0, options))
	defer unix.Unmount(dir+"/all", 0)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "all/file"), []byte("above"), 0o666))
	text, err := os.ReadFile(filepath.Join(dir, "lower/file"))
	require.NoError(t, err)
	require.Equal(t, "below", string(text))
}

// The kernel asks modprobe for the modules of network devices by the alias rtnl-link-KIND.
func TestTheKernelLoadsTheModulesOfADevice(t *testing.T) {
	run(t, "ip", "link", "add", "proof0", "type", "dummy")
	defer run(t, "ip", "link", "del", "proof0")
	require.Contains(t, run(t, "ip", "link", "show", "proof0"), "proof0")
	loaded, err := os.ReadFile("/proc/modules")
	require.NoError(t, err)
	require.Contains(t, string(loaded), "dummy ")
}

// A node of /dev is there before its module: opening it loads the module.
func TestADeviceNodeLoadsItsModule(t *testing.T) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	request, err := unix.NewIfreq("proof1")
	require.NoError(t, err)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	require.NoError(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	require.Contains(t, run(t, "ip", "link", "show", "proof1"), "proof1")
}

// The kernel asks for the alias net-pf-40, which several modules have. Most drive devices that the machine lacks.
func TestTheKernelLoadsTheModuleOfAnAddressFamily(t *testing.T) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 4242}))
	require.NoError(t, unix.Listen(fd, 1))
	client, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(client)
	require.NoError(t, unix.Connect(client, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 4242}))
}

func TestAControlGroupKillsItsProcesses(t *testing.T) {
	group := "/sys/fs/cgroup/proof"
	require.NoError(t, os.Mkdir(group, 0o755))
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	require.NoError(t, sleeper.Start())
	require.NoError(t, os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(sleeper.Process.Pid)), 0o644))
	require.NoError(t, os.WriteFile(group+"/cgroup.kill", []byte("1"), 0o644))
	require.ErrorContains(t, sleeper.Wait(), "killed")
	require.Eventually(t, func() bool { return os.Remove(group) == nil }, 10*time.Second, 10*time.Millisecond, "the group is empty")
}

func TestABPFMapIsCreated(t *testing.T) {
	attr := struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	require.Zero(t, errno, errno.Error())
	unix.Close(int(fd))
}

// Everything that a machine's tests do to its kernel ends with the machine.
func TestTheHostNameIsOurs(t *testing.T) {
	require.NoError(t, unix.Sethostname([]byte("proof")))
	var u unix.Utsname
	require.NoError(t, unix.Uname(&u))
	require.Equal(t, "proof", strings.TrimRight(string(u.Nodename[:]), "\x00"))
}
