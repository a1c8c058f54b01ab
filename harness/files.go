package harness

import (
	"context"
	"fmt"
	"io/fs"
)

// CopyIn copies a file or a directory of the host into the guest, with all that is in it, as "cp -a" does:
//
//   - If guestPath, which is absolute, is a directory, the copy gets the name of hostPath there. Otherwise
//     the copy is at guestPath. For a hostPath such as DIR/. what is in DIR is copied into the directory
//     guestPath.
//   - A directory that exists is merged with the copy. A file or a symbolic link that exists is replaced. A
//     directory does not replace a file, nor a file a directory.
//   - Symbolic links are copied as links. Permissions, including setuid, setgid and sticky bits, and the
//     times of the last change of files and directories are kept. Holes stay holes. The copy belongs to
//     root, hard links become separate files, and a file of another kind, such as a socket, is an error.
//
// CopyIn works on every machine with an initramfs whose init is guesthouse's and whose kernel has virtio_console
// and virtio_blk. It may be called before the guest is ready. While it runs, the machine cannot be saved.
//
// A file appears under its name when it is complete and its checksum is right. If CopyIn fails, it removes
// the copy, unless the copy was merged with a directory: then the error says how many files that directory
// has got. An error of the guest wraps [ErrGuest] and the error of the system call in the guest, such as
// fs.ErrNotExist or syscall.ENOSPC. A file of the host that changes while it is copied is an error.
func (m *Machine) CopyIn(ctx context.Context, hostPath, guestPath string) error {
	if err := m.vm.CopyIn(ctx, hostPath, guestPath); err != nil {
		return fmt.Errorf("copy %s into %s at %s: %w", hostPath, m.plan.name(), guestPath, err)
	}
	return nil
}

// CopyOut copies a file or a directory of the guest to the host, by the rules of [Machine.CopyIn], except that
// the copy belongs to the user of this process and has no setuid and setgid bits. The copy lies in the
// directory in which hostPath lies, or in the directory hostPath, whatever the guest sends.
//
// If this process is killed, a copy of a directory may lack files, and no file is incomplete. On a file system without
// unnamed files (O_TMPFILE), such as NFS, the file that was being written is left as .guesthouse-XXXX.
//
// A file in /proc or /sys that can be read to an end can be copied.
func (m *Machine) CopyOut(ctx context.Context, guestPath, hostPath string) error {
	if err := m.vm.CopyOut(ctx, guestPath, hostPath); err != nil {
		return fmt.Errorf("copy %s of %s to %s: %w", guestPath, m.plan.name(), hostPath, err)
	}
	return nil
}

// FS returns the guest's files, for reading. The names are relative to the guest's root: "etc/hosts". The file
// system follows symbolic links, and its files are read as they are at that time. It has the methods of
// fs.StatFS, fs.ReadDirFS, fs.ReadFileFS and fs.ReadLinkFS, and its files those of io.ReaderAt. An error wraps ErrGuest if
// the guest failed, and its cause, such as fs.ErrNotExist. Each access waits for the guest's agent for at most
// 30 s of the machine's time.
//
// Directories, and regular files including those in /proc and /sys, can be read; fs.ReadFile returns at most 256 MiB.
// For much data CopyOut is faster.
func (m *Machine) FS() fs.FS { return guestFS{m} }
