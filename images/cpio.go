package images

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// A record is one file of an archive.
type record struct {
	name         string // without a leading slash
	mode         uint32 // type and permissions, as in inode(7)
	data         []byte // of a regular file, or the target of a symbolic link
	major, minor uint32 // of a device
}

func regularFile(name string, data []byte, perm uint32) record {
	return record{name: name, mode: unix.S_IFREG | perm, data: data}
}

func textFile(name, text string) record { return regularFile(name, []byte(text), 0o644) }

func directory(name string, perm uint32) record {
	return record{name: name, mode: unix.S_IFDIR | perm}
}

func symlink(name, target string) record {
	return record{name: name, mode: unix.S_IFLNK | 0o777, data: []byte(target)}
}

func characterDevice(name string, perm, major, minor uint32) record {
	return record{name: name, mode: unix.S_IFCHR | perm, major: major, minor: minor}
}

// archive returns an uncompressed cpio archive, which boots faster than a compressed one. The
// archive depends only on the records: they are sorted by name and have no times, owners or
// inode numbers. The kernel does not make missing directories, so archive adds the directories
// that no record names. Each directory comes before its files.
func archive(records []record) ([]byte, error) {
	all := map[string]record{}
	for _, r := range records {
		all[r.name] = r
	}
	for _, r := range records {
		for dir := path.Dir(r.name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = directory(dir, 0o755)
			}
		}
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].write(&b); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err := record{name: "TRAILER!!!"}.write(&b)
	return b.Bytes(), err
}

// write appends a record in the format newc. Source: Documentation/driver-api/early-userspace/buffer-format.rst
// of Linux.
func (r record) write(b *bytes.Buffer) error {
	if uint64(len(r.data)) > math.MaxUint32 {
		return errors.New("the file is too large: the limit for a file of an initramfs is 4 GiB")
	}
	b.WriteString("070701")
	for _, field := range []uint32{
		0, // inode
		r.mode,
		0, 0, // user and group
		0, // links
		0, // time of the last change
		uint32(len(r.data)),
		0, 0, // device that it is on
		r.major, r.minor,
		uint32(len(r.name) + 1),
		0, // checksum, which this format leaves out
	} {
		fmt.Fprintf(b, "%08X", field)
	}
	b.WriteString(r.name)
	b.WriteByte(0)
	align(b)
	b.Write(r.data)
	align(b)
	return nil
}

// align pads to a multiple of four bytes.
func align(b *bytes.Buffer) { b.Write(make([]byte, -b.Len()&3)) }
