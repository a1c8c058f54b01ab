package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// A guest has the file systems, files and commands that programs, and tests of packages that talk to
// the kernel, expect.
func TestAGuestHasWhatTestsExpect(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := harnesstest.Platform(t, target)
		dir := t.TempDir()
		write(t, filepath.Join(dir, "file"), "from the host")
		spec.Share = []harness.Share{{Host: dir, Guest: "/mnt/share", Mode: harness.ShareOverlay}}
		m := harnesstest.Boot(t, spec)
		mounted := make(map[string]string) // directory → file system
		for line := range strings.Lines(m.Output("cat", "/proc/mounts")) {
			f := strings.Fields(line)
			mounted[f[1]] = f[2]
		}
		known := m.Output("cat", "/proc/filesystems")
		for dir, kind := range map[string]string{
			"/dev": "devtmpfs", "/dev/hugepages": "hugetlbfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/proc": "proc",
			"/run": "tmpfs", "/sys": "sysfs", "/sys/fs/bpf": "bpf", "/sys/fs/cgroup": "cgroup2", "/sys/kernel/debug": "debugfs",
			"/sys/kernel/security": "securityfs", "/sys/kernel/tracing": "tracefs", "/tmp": "tmpfs",
		} {
			if kind == "hugetlbfs" && !strings.Contains(known, "\thugetlbfs\n") {
				continue // the kernel of a 32-bit target may have none
			}
			require.Equal(t, kind, mounted[dir], dir)
		}
		// Every kernel has the drivers of a share: fuse, and overlay for what the guest changes.
		require.Equal(t, "changed\nfrom the host", m.Output("sh", "-c", "cd /mnt/share && echo changed >new && cat new file"))
		require.NoFileExists(t, filepath.Join(dir, "new"))
		require.NotEmpty(t, m.Output("cat", "/sys/fs/cgroup/cgroup.controllers"))
		require.Contains(t, m.Output("ls", "/sys/kernel/tracing"), "trace_pipe")

		require.Equal(t, "guest\n", m.Output("hostname"))
		require.Equal(t, "/root\n", m.Output("printenv", "HOME"))
		require.Equal(t, "a b\n", m.Output("sh", "-c", `cd "$HOME" && echo "a b" > f && test -s f && [ -f f ] && cat /dev/stdin < f`))
		require.Contains(t, m.Output("cat", "/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
		require.Contains(t, m.Output("cat", "/etc/group"), "root:x:0:\n")
		require.Contains(t, m.Output("cat", "/etc/hosts"), "192.0.2.2 host\n")
		require.Contains(t, m.Output("cat", "/etc/resolv.conf"), "nameserver 192.0.2.3\n", "QEMU's name server")
		require.Contains(t, m.Output("ip", "addr", "show", "lo"), "UP")
		require.Contains(t, m.Output("ls", "-ld", "/tmp"), "dtrwxrwxrwx", "as Go writes the mode")

		commands := []string{"chmod", "date", "dd", "df", "du", "insmod", "ln", "lsmod", "mktemp", "mknod",
			"mv", "pwd", "seq", "sort", "stty", "tar", "tee", "timeout", "touch", "true", "umount", "wc", "which", "xargs"}
		require.Equal(t, "/bbin/"+strings.Join(commands, "\n/bbin/")+"\n", m.Output("which", commands...))
		require.Equal(t, "3\n", m.Output("sh", "-c", "seq 3 | sort | tail -n 1"))
		require.Equal(t, "/sbin/modprobe\n", m.Output("cat", "/proc/sys/kernel/modprobe"))
		m.Output("modprobe", "virtio_net")
		out, err := m.Machine.Command(t.Context(), "/sbin/modprobe", "nonesuch").CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "nonesuch")
		out, err = m.Machine.Command(t.Context(), "/sbin/modprobe", "-q", "--", "nonesuch").CombinedOutput()
		require.Error(t, err)
		require.Empty(t, string(out))
		m.Shutdown()
	})
}

// Nobody could deliver a program, so the platform does not wait for one.
func TestAPlatformWithoutTheHarnesssPortPowersOff(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Platform(t, oneTarget(t))
	spec.Cmdline = []string{"module_blacklist=virtio_console"}
	err := boot(t, spec)
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "init: no program: the initramfs has no /bin/uinit, and the machine has no port guesthouse.agent over which a harness can deliver one; the machine powers off")
}

// The terminal sends the signals of Ctrl-C, Ctrl-\ and Ctrl-Z to init while no program is in the
// foreground. If init ended, the kernel would panic.
func TestCtrlCDoesNotEndAPlatform(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, harnesstest.Platform(t, oneTarget(t)))
	for _, key := range []string{"\x03", "\x1c", "\x1a"} {
		m.Send(key)
	}
	require.Contains(t, m.Output("ps"), "ps")
	m.Shutdown()
	require.Equal(t, "the harness asked for it", m.Result().PowerOff)
}

// A program may configure the network itself.
func TestInitLeavesTheNetworkToTheProgram(t *testing.T) {
	t.Parallel()
	spec := harnesstest.Platform(t, oneTarget(t))
	spec.Cmdline = []string{"guesthouse.ip=none guesthouse.ip6=none"}
	spec.Outbound = harness.OutboundHost
	m := harnesstest.Boot(t, spec)
	require.NotContains(t, m.Output("ip", "addr", "show", "eth0"), "UP")
	m.Output("ip", "link", "set", "eth0", "up")
	m.Output("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	require.Contains(t, m.Output("ip", "addr", "show", "eth0"), "192.0.2.1/24")
	m.Shutdown()
}
