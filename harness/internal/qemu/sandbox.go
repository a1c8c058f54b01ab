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

// A guest may be hostile, and a bug in QEMU may give it the QEMU process. So that process gets little from
// its owner: no system call that starts a program or raises privileges, no environment but what QEMU
// reads, no descriptors but its own, and a umask under which no other user can read its files.
// docs/security.md says what that promises.

// sandboxArgs makes QEMU filter its own system calls (seccomp): it cannot start a program, become
// another user or reschedule other processes. A QEMU or a host's kernel without such filters runs
// unfiltered, and so does a machine whose own arguments have -sandbox.
func sandboxArgs(binary string, own []string) []string {
	if slices.Contains(own, "-sandbox") || slices.Contains(own, "--sandbox") || !seccompFilters() || !hasSandbox(binary) {
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

// hasSandbox reports whether a QEMU binary has the option -sandbox. A binary that is linked with
// libseccomp has it. hasSandbox runs a script, such as Debian's qemu-system-i386, and a static binary
// once: a QEMU without the option refuses it before it prints its version.
func hasSandbox(binary string) bool {
	id, err := Identity(binary)
	if err != nil {
		return false
	}
	has, _ := sandboxOption.LoadOrStore(id, sync.OnceValue(func() bool {
		if f, err := elf.Open(binary); err == nil {
			defer f.Close()
			if libraries, _ := f.ImportedLibraries(); len(libraries) > 0 {
				return slices.ContainsFunc(libraries, func(l string) bool { return strings.HasPrefix(l, "libseccomp.") })
			}
		}
		return acceptsSandbox(binary)
	}))
	return has.(func() bool)()
}

var sandboxProbed sync.Map // the identities of the binaries in sandboxOption whose function has returned

// ProbeSandbox finds out whether a binary has the option -sandbox, so that Args need not wait for it. It
// fails if ctx ends first.
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
// need. Those of displays matter with QEMU arguments of the user's own.
var inheritedVariables = []string{
	"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "LC_ALL",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR",
}

// environ returns QEMU's environment. It leaves out most of this process's, which may hold a token of
// some service, and tunes the C library's heap: in a virtual machine, the page faults and system
// calls of a heap that grows page by page are a fifth of what a restore takes.
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

// heapAtOnce is larger than the heap of any of the harness's machines when it is ready. It is address space,
// which takes no memory until QEMU writes to it.
const heapAtOnce = 32 << 20

// closeInherited extends a child's descriptors, from 3 on, by nil entries, for which package exec closes
// the descriptor. The child would inherit others otherwise: those that this process was started with
// and that are not marked close-on-exec.
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

// ownUmask gives the calling thread a umask of its own, under which a process that the thread starts makes
// files that no other user can read. The thread must not serve anything else afterwards.
func ownUmask() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("umask: %w", os.NewSyscallError("unshare", err))
	}
	unix.Umask(0o077)
	return nil
}
