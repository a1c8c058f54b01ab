package qemu

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/tied"
)

// A guest may be hostile, and a bug in QEMU may let it take over the QEMU process. The process therefore
// gets as few rights as possible: no system call that starts a program or raises privileges, only the
// environment variables and descriptors that QEMU needs, and a umask under which no other user can read
// its files. docs/security.md has the promises.

// sandboxArgs makes QEMU filter its own system calls (seccomp): it cannot start a program, become
// another user or reschedule other processes. It returns nothing if QEMU or the host's kernel has no such
// filters, or if the user's arguments have -sandbox.
func sandboxArgs(binary string, userArgs []string) []string {
	if slices.Contains(userArgs, "-sandbox") || slices.Contains(userArgs, "--sandbox") || !seccompFilters() || !hasSandbox(binary) {
		return nil
	}
	return []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
}

// seccompFilters reports whether the host's kernel can filter system calls. The kernel answers EFAULT to
// the null filter, and EINVAL if it was built without filters. Source: seccomp(2).
var seccompFilters = sync.OnceValue(func() bool {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0) == unix.EFAULT
})

var sandboxOption sync.Map // from a binary's identity to a function that returns whether it has -sandbox

// hasSandbox reports whether a QEMU binary has the option -sandbox. A dynamic binary has it if it is linked
// with libseccomp. To find out about a static binary, or about a script such as Debian's
// qemu-system-i386, hasSandbox runs it once with -version: a QEMU without the option refuses it.
func hasSandbox(binary string) bool {
	id, err := Identity(binary)
	if err != nil {
		return false
	}
	find, _ := sandboxOption.LoadOrStore(id, sync.OnceValue(func() bool {
		if f, err := elf.Open(binary); err == nil {
			defer f.Close()
			if libraries, _ := f.ImportedLibraries(); len(libraries) > 0 {
				return slices.ContainsFunc(libraries, func(l string) bool { return strings.HasPrefix(l, "libseccomp.") })
			}
		}
		return acceptsSandbox(binary)
	}))
	return find.(func() bool)()
}

var sandboxProbed sync.Map // the identities of the binaries in sandboxOption whose function has returned

// ProbeSandbox finds out whether a binary has the option -sandbox, so that Args need not wait for the
// binary. It fails if ctx ends first.
func ProbeSandbox(ctx context.Context, binary string) error {
	id, err := Identity(binary)
	if err != nil {
		return nil // starting the binary fails and says why
	}
	if _, known := sandboxProbed.Load(id); known {
		return nil
	}
	known := make(chan struct{})
	go func() {
		hasSandbox(binary)
		sandboxProbed.Store(id, true)
		close(known)
	}()
	select {
	case <-known:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s -version: no answer: %w", binary, context.Cause(ctx))
	}
}

const versionWithin = 5 * time.Second // wall time; QEMU prints its version within some hundredths of a second

func acceptsSandbox(binary string) bool {
	cmd := exec.Command(binary, "-sandbox", "on", "-version")
	cmd.Env = environ()
	ended, err := tied.Start(cmd)
	if err != nil {
		return false
	}
	late := time.AfterFunc(versionWithin, func() { cmd.Process.Kill() })
	defer late.Stop()
	return <-ended == nil
}

// inheritedVariables are the environment variables that QEMU, its libraries or a wrapper script may
// need. QEMU needs those of displays only if the user's arguments open a display.
var inheritedVariables = []string{
	"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "LC_ALL",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR",
}

// environ returns QEMU's environment. It leaves out most of this process's variables, which may hold
// secrets. It also tunes the C library's heap: on a host that is a virtual machine, the page faults and
// system calls of a heap that grows page by page take a fifth of the time of a restore.
func environ() (env []string) {
	const tunables = "GLIBC_TUNABLES"
	tuned := tunables + "=" + strings.Join([]string{
		"glibc.malloc.hugetlb=1",                           // huge pages, where the kernel gives them on demand (as Debian's does),
		"glibc.malloc.top_pad=" + strconv.Itoa(heapAtOnce), // in one piece, in which huge pages find their alignment,
		"glibc.malloc.arena_max=1",                         // and one heap for all threads
	}, ":")
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch {
		case name == tunables:
			tuned = variable
		case slices.Contains(inheritedVariables, name), strings.HasPrefix(name, "QEMU_"), strings.HasPrefix(name, "GUESTHOUSE_"):
			env = append(env, variable)
		}
	}
	return append(env, tuned)
}

// heapAtOnce is larger than QEMU's heap is when a machine of the harness is ready, in bytes. It is address
// space, which takes no memory until QEMU writes to it.
const heapAtOnce = 32 << 20

// closeInherited extends a child's files, which become its descriptors from 3 on, by nil entries. For a
// nil entry package exec closes the descriptor. Otherwise the child would inherit the descriptors of this
// process that are not marked close-on-exec.
func closeInherited(files []*os.File) []*os.File {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			for len(files) < fd-3+1 {
				files = append(files, nil)
			}
		}
	}
	return files
}

// ownUmask gives the calling thread its own umask, under which no other user can read the files of a
// process that the thread starts. The thread must not run other goroutines afterwards.
func ownUmask() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("umask: %w", os.NewSyscallError("unshare", err))
	}
	unix.Umask(0o077)
	return nil
}
