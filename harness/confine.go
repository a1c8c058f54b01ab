package harness

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

// What a QEMU process gets of its owner's is little, for a guest may be hostile and a bug of QEMU's may give
// it the process: no system call that starts a program or raises privileges, no environment
// but what QEMU reads, no descriptors but its own, and no file that another user can read.
// docs/security.md says what that promises.

// sandboxArgs has QEMU filter its own system calls (seccomp): no new program, no other user, no
// scheduling of others. A QEMU or a kernel without such filters runs without, and so does a
// machine whose own arguments say -sandbox.
func sandboxArgs(binary string, own []string) []string {
	if slices.Contains(own, "-sandbox") || slices.Contains(own, "--sandbox") || !seccompFilters() || !hasSeccomp(binary) {
		return nil
	}
	return []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
}

// seccompFilters reports whether the kernel filters system calls. It answers EFAULT to a filter
// that is not there, and EINVAL where it knows no filters. Source: seccomp(2).
var seccompFilters = sync.OnceValue(func() bool {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0) == unix.EFAULT
})

var seccompOf sync.Map // of a binary's identity to a function that returns whether it has -sandbox

// hasSeccomp reports whether a QEMU binary was built with -sandbox. It is linked with libseccomp
// then. A script, as Debian's qemu-system-i386 is one, and a static binary are run once: a QEMU
// without the option refuses it before it prints its version.
func hasSeccomp(binary string) bool {
	id, err := binaryIdentity(binary)
	if err != nil {
		return false
	}
	has, _ := seccompOf.LoadOrStore(id, sync.OnceValue(func() bool {
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

var seccompKnown sync.Map // of the identities of binaries that seccompOf has the answer for

// probeSandbox finds out what sandboxArgs asks of a binary, which may have to be run for that,
// unless ctx ends first.
func probeSandbox(ctx context.Context, binary string) error {
	id, err := binaryIdentity(binary)
	if err != nil {
		return nil // whoever starts it says so
	}
	if _, known := seccompKnown.Load(id); known {
		return nil
	}
	known := make(chan struct{})
	go func() {
		hasSeccomp(binary)
		seccompKnown.Store(id, true)
		close(known)
	}()
	select {
	case <-known:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s -version: no answer: %w", binary, context.Cause(ctx))
	}
}

const versionWithin = 5 * time.Second // on the wall: a QEMU that is asked for its version prints it in some hundredths

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

// qemuReads are the variables of the environment that QEMU, its libraries or a wrapper around it
// may need. Those of the display and of sound matter with QEMU arguments of the user's own.
var qemuReads = []string{
	"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "LC_ALL",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR",
}

// environ is QEMU's environment: little of ours, where a token for some service may be. It tells
// the C library how to keep QEMU's heap, for in a virtual machine the page faults and system
// calls of a heap that grows page by page are a fifth of what a restore takes.
func environ() (env []string) {
	const tunables = "GLIBC_TUNABLES"
	tuned := tunables + "=" + strings.Join([]string{
		"glibc.malloc.hugetlb=1",                           // of huge pages, where the kernel gives them on demand (as Debian's does),
		"glibc.malloc.top_pad=" + strconv.Itoa(heapAtOnce), // in one piece: a huge page needs a place with its alignment,
		"glibc.malloc.arena_max=1",                         // and one for all threads
	}, ":")
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch {
		case name == tunables:
			tuned = variable
		case slices.Contains(qemuReads, name), strings.HasPrefix(name, "QEMU_"), strings.HasPrefix(name, "GUESTHOUSE_"):
			env = append(env, variable)
		}
	}
	return append(env, tuned)
}

// heapAtOnce is more than the heap that any of our machines has when it is ready. It is
// address space: what is not touched is not there.
const heapAtOnce = 32 << 20

// closeInherited extends the descriptors that a child gets, from 3 on, so that it gets no other:
// those that this process was started with and that would stay open in every child. A nil entry
// has package exec close the descriptor.
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

// ownUmask gives the calling thread a umask of its own, under which a process that it starts
// makes files that no other user can read. The thread must not be used for anything else.
func ownUmask() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("umask: %w", os.NewSyscallError("unshare", err))
	}
	unix.Umask(0o077)
	return nil
}

// ownedByUs refuses a file that another user could have made or changed: whoever can change a
// template changes what every machine restored from it does.
func ownedByUs(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch {
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Errorf("%s belongs to another user, whose number is %d", f.Name(), st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by other users (its mode is %#o)", f.Name(), st.Mode&0o777)
	}
	return nil
}
