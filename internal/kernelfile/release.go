package kernelfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"regexp"

	"guesthouse.example/internal/regular"
)

// Release returns the release of a Linux kernel as "uname -r" prints it, or "" if the file does not tell:
// the boot code of some kernels decompresses them, and the release is in the compressed part.
func Release(file string) string {
	f, err := regular.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if release := bzImageRelease(f); release != "" {
		return release
	}
	r := bufio.NewReaderSize(f, scanned)
	if magic, err := r.Peek(2); err == nil && string(magic) == "\x1f\x8b" {
		if z, err := gzip.NewReader(r); err == nil {
			return bannerRelease(z)
		}
	}
	return bannerRelease(r)
}

// bzImageRelease returns the release that the setup header of an x86 kernel points to.
// Source: Documentation/arch/x86/boot.rst of Linux.
func bzImageRelease(r io.ReaderAt) string {
	head := make([]byte, 0x210)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[0x202:0x206]) != "HdrS" {
		return ""
	}
	text := make([]byte, 256)
	n, _ := r.ReadAt(text, 0x200+int64(binary.LittleEndian.Uint16(head[0x20e:])))
	text, _, _ = bytes.Cut(text[:n], []byte{0})
	release, _, _ := bytes.Cut(text, []byte{' '})
	return string(release)
}

// banner is the first line that Linux prints. Source: init/version-timestamp.c of Linux.
var banner = regexp.MustCompile(`Linux version ([0-9][0-9A-Za-z.+~_-]*) \(`)

const (
	scanned = 1 << 20
	overlap = 256 // bytes; a banner's beginning is shorter
)

func bannerRelease(r io.Reader) string {
	buf := make([]byte, overlap+scanned)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		text := buf[:kept+n]
		if m := banner.FindSubmatch(text); m != nil {
			return string(m[1])
		}
		if err != nil {
			return ""
		}
		kept = copy(buf, text[len(text)-overlap:])
	}
}
