package main

import (
	"errors"
	"io/fs"
	"log"
	"os"

	"github.com/u-root/u-root/pkg/libinit"
	"github.com/u-root/u-root/pkg/ulog"
	"golang.org/x/sys/unix"
)

// A mount is a file system that init mounts. Programs, and tests of packages that talk to the kernel,
// expect these file systems.
type mount struct {
	kind, target, options string
	flags                 uintptr
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mounts are in the order in which init mounts them. The kernel makes the directories below /sys if it
// has the file system. /proc/sys/fs/binfmt_misc is not among them: mounting it loads a module.
var mounts = []mount{
	{kind: "proc", target: "/proc", flags: safe},
	{kind: "sysfs", target: "/sys", flags: safe},
	{kind: "tmpfs", target: "/tmp", flags: unix.MS_NOSUID | unix.MS_NODEV},
	{kind: "tmpfs", target: "/run", flags: unix.MS_NOSUID | unix.MS_NODEV, options: "mode=755"},
	// With newinstance, /dev/ptmx must be a link to the file system's own.
	{kind: "devpts", target: "/dev/pts", options: "newinstance,ptmxmode=666,gid=5,mode=620", flags: unix.MS_NOSUID | unix.MS_NOEXEC},
	{kind: "tmpfs", target: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV},
	{kind: "hugetlbfs", target: "/dev/hugepages", flags: unix.MS_NOSUID | unix.MS_NODEV},
	// Version 2 of the control groups can freeze and kill several processes at once.
	{kind: "cgroup2", target: "/sys/fs/cgroup", flags: safe},
	{kind: "bpf", target: "/sys/fs/bpf", options: "mode=700", flags: safe},
	{kind: "debugfs", target: "/sys/kernel/debug", flags: safe},
	{kind: "tracefs", target: "/sys/kernel/tracing", flags: safe},
	{kind: "securityfs", target: "/sys/kernel/security", flags: safe},
}

// links are symbolic links that programs expect.
var links = [][2]string{
	{"/dev/ptmx", "pts/ptmx"},
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "fd/0"},
	{"/dev/stdout", "fd/1"},
	{"/dev/stderr", "fd/2"},
	{"/etc/mtab", "/proc/self/mounts"},
	{"/var/run", "/run"},
}

// environment is what programs inherit from init.
var environment = [][2]string{
	{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin"},
	{"HOME", "/root"},
	{"USER", "root"},
}

// makeRootfs makes the file systems and files that every program expects.
func makeRootfs() {
	for _, v := range environment {
		os.Setenv(v[0], v[1])
	}
	unix.Umask(0)
	defer unix.Umask(0o022)
	libinit.Create(libinit.PreNamespace, false) // devtmpfs
	ulog.KernelLog.Reinit()                     // /dev/kmsg exists now
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			log.Printf("mount %s: %v", m.target, err)
		}
	}
	for _, l := range links {
		os.Remove(l[0])
		if err := os.Symlink(l[1], l[0]); err != nil {
			log.Print(err)
		}
	}
}

// mount mounts the file system. It does nothing in a kernel without it.
func (m mount) mount() error {
	err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options)
	if errors.Is(err, unix.ENOENT) && os.Mkdir(m.target, 0o755) == nil {
		err = unix.Mount(m.kind, m.target, m.kind, m.flags, m.options)
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
