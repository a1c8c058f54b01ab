// Files is run in the guest from a directory of the host. It does one thing with files, which its
// arguments name, and prints what came of it on one line. An error is printed as its number's name.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	said, err := do(os.Args[1], os.Args[2:])
	var errno unix.Errno
	switch {
	case os.Args[1] != "battery" && errors.As(err, &errno):
		said = unix.ErrnoName(errno)
	case err != nil:
		said = err.Error()
	}
	fmt.Println(said)
}

func do(what string, args []string) (string, error) {
	switch what {
	case "walk":
		return walk(args[0])
	case "count":
		return count(args[0])
	case "read":
		return read(args[0])
	case "map":
		return mapped(args[0])
	case "write": // FILE TEXT
		return "ok", os.WriteFile(args[0], []byte(args[1]), 0o666)
	case "fill": // FILE MIB
		return fill(args[0], args[1])
	case "cat":
		b, err := os.ReadFile(args[0])
		return string(b), err
	case "mkdir":
		return "ok", os.Mkdir(args[0], 0o755)
	case "rename":
		return "ok", os.Rename(args[0], args[1])
	case "remove":
		return "ok", os.Remove(args[0])
	case "link":
		return "ok", os.Link(args[0], args[1])
	case "symlink":
		return "ok", os.Symlink(args[0], args[1])
	case "mkfifo":
		return "ok", unix.Mkfifo(args[0], 0o666)
	case "chmod":
		return "ok", os.Chmod(args[0], 0o4711)
	case "stat":
		return stat(args[0])
	case "hold":
		return hold(args[0])
	case "battery":
		return "ok", battery(args[0])
	}
	return "", fmt.Errorf("unknown word %q", what)
}

// walk counts the entries of a tree and the bytes of its files.
func walk(dir string) (string, error) {
	start := time.Now()
	n, bytes := 0, int64(0)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			n++
			bytes += info.Size()
		}
		return nil
	})
	return fmt.Sprintf("%d files, %d bytes in %v", n, bytes, time.Since(start)), err
}

// count counts the files of a tree without a look at each of them.
func count(dir string) (string, error) {
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	return fmt.Sprintf("%d files", n), err
}

// read reads a file to its end.
func read(name string) (string, error) {
	start := time.Now()
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	n, sum, b := int64(0), byte(0), make([]byte, 1<<20)
	for {
		k, err := f.Read(b)
		n += int64(k)
		for i := 0; i < k; i += 4096 {
			sum += b[i]
		}
		if err == io.EOF {
			return fmt.Sprintf("%d bytes, sum %d in %v", n, sum, time.Since(start)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// mapped maps a file and adds up the first byte of each page, again after each line of its input.
func mapped(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	lines := bufio.NewScanner(os.Stdin)
	for {
		sum := byte(0)
		for i := 0; i < len(b); i += os.Getpagesize() {
			sum += b[i]
		}
		fmt.Printf("sum %d\n", sum)
		if !lines.Scan() {
			return "unmapped", nil
		}
	}
}

func fill(name, mib string) (string, error) {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return "", err
	}
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i)
	}
	for i := range n {
		if _, err := f.Write(b); err != nil {
			return fmt.Sprint(i), err
		}
	}
	return "ok", f.Close()
}

func stat(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%o %d:%d %d links, %d bytes, %d", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec), nil
}

// hold opens a file, writes to it and keeps it open. It prints "held" and then, for each line of its input, what
// the file contains.
func hold(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return "", err
	}
	if _, err := f.WriteString("held"); err != nil {
		return "", err
	}
	fmt.Println("held")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		b := make([]byte, 100)
		n, err := f.ReadAt(b, 0)
		fmt.Printf("%q %v\n", b[:n], err)
	}
	return "released", nil
}

// battery does in a directory what programs do with files.
func battery(dir string) error {
	name := func(s string) string { return filepath.Join(dir, s) }
	check := func(step string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		return nil
	}
	same := func(step, file, want string) error {
		b, err := os.ReadFile(file)
		if err == nil && string(b) != want {
			err = fmt.Errorf("%q instead of %q", b, want)
		}
		return check(step, err)
	}
	for _, step := range []func() error{
		func() error { return check("mkdir", os.MkdirAll(name("d/e/f"), 0o755)) },
		func() error { return check("write", os.WriteFile(name("d/a"), []byte("one"), 0o640)) },
		func() error { return same("read", name("d/a"), "one") },
		func() error { return check("link", os.Link(name("d/a"), name("d/b"))) },
		func() error {
			f, err := os.OpenFile(name("d/b"), os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = f.WriteString(" two")
				err = errors.Join(err, f.Sync(), f.Close())
			}
			return check("append", err)
		},
		func() error { return same("the other name", name("d/a"), "one two") },
		func() error { return check("truncate", os.Truncate(name("d/a"), 3)) },
		func() error { return same("truncated", name("d/b"), "one") },
		func() error { return check("symlink", os.Symlink("a", name("d/s"))) },
		func() error { return same("through the link", name("d/s"), "one") },
		func() error { return check("rename", os.Rename(name("d"), name("z"))) },
		func() error { return same("renamed", name("z/s"), "one") },
		func() error {
			f, err := os.OpenFile(name("z/m"), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return check("map", err)
			}
			defer f.Close()
			if err := f.Truncate(1 << 20); err != nil {
				return check("map", err)
			}
			b, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return check("map", err)
			}
			copy(b[1<<19:], "mapped")
			return check("map", errors.Join(unix.Msync(b, unix.MS_SYNC), unix.Munmap(b)))
		},
		func() error {
			f, err := os.Open(name("z/m"))
			if err != nil {
				return check("mapped", err)
			}
			defer f.Close()
			b := make([]byte, 6)
			if _, err := f.ReadAt(b, 1<<19); err == nil && string(b) != "mapped" {
				return fmt.Errorf("mapped: %q", b)
			} else if err != nil {
				return check("mapped", err)
			}
			return nil
		},
		func() error {
			f, err := os.CreateTemp(dir, "gone")
			if err != nil {
				return check("unlinked", err)
			}
			defer f.Close()
			err = errors.Join(os.Remove(f.Name()), f.Truncate(10), f.Chmod(0o600))
			if _, failed := f.WriteAt([]byte("x"), 9); failed != nil {
				err = errors.Join(err, failed)
			}
			if info, failed := f.Stat(); failed != nil || info.Size() != 10 {
				err = errors.Join(err, failed, errors.New("not 10 bytes"))
			}
			return check("unlinked", err)
		},
		func() error {
			when := time.Unix(1000000000, 123456789)
			err := os.Chtimes(name("z/a"), when, when)
			if info, failed := os.Stat(name("z/a")); failed != nil || !info.ModTime().Equal(when) {
				err = errors.Join(err, failed, fmt.Errorf("%v", info.ModTime()))
			}
			return check("times", err)
		},
		func() error { return check("chmod", os.Chmod(name("z/a"), 0o600)) },
		func() error { return check("remove", os.RemoveAll(name("z/e"))) },
		func() error {
			if _, err := os.Stat(name("z/e")); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removed: %v", err)
			}
			return nil
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
