package images

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"guesthouse.example/internal/imagecache"
)

// An unpacker collects the files of a kernel from the packages that hold them.
type unpacker struct {
	dir     string
	files   map[string]string // path in dir → SHA-256
	kernel  string            // the release of the kernel file
	modules string            // the release of the modules
}

var (
	// Packages of a merged /usr have the modules in usr/lib. After Debian 13 the kernel is
	// beside the modules.
	kernelFile = regexp.MustCompile(`^(?:boot/vmlinu[xz]-([^/]+)|(?:usr/)?lib/modules/([^/]+)/vmlinu[xz])$`)
	moduleFile = regexp.MustCompile(`^(?:usr/)?lib/modules/([^/]+)/(kernel/.+\.ko(?:\.xz|\.zst|\.gz)?|modules\.builtin)$`)
)

// unpackTar takes the kernel and the modules from the file tree of one package.
func (u *unpacker) unpackTar(r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			// dpkg-deb pads the archive and waits until the padding is read.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// A path that is cleaned below "/" cannot leave the directory.
		name := path.Clean("/" + h.Name)[1:]
		if m := kernelFile.FindStringSubmatch(name); m != nil {
			release := m[1] + m[2]
			if u.kernel != "" {
				return fmt.Errorf("two kernels: %s and %s", u.kernel, release)
			}
			u.kernel = release
			err = u.write(imagecache.KernelName, archive)
		} else if m := moduleFile.FindStringSubmatch(name); m != nil {
			if u.modules != "" && u.modules != m[1] {
				return fmt.Errorf("modules of two kernels: %s and %s", u.modules, m[1])
			}
			u.modules = m[1]
			err = u.write(path.Join("modules", m[2]), archive)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacker) write(name string, r io.Reader) error {
	dst := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(dst), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), r)
	if e := f.Close(); err == nil {
		err = e
	}
	u.files[name] = hex.EncodeToString(h.Sum(nil))
	return err
}

// manifest returns the manifest of the files, or an error if they are not one kernel and its modules.
func (u *unpacker) manifest() (imagecache.Manifest, error) {
	switch {
	case u.kernel == "":
		return imagecache.Manifest{}, errors.New("the packages have no kernel (boot/vmlinuz-* or lib/modules/*/vmlinuz)")
	case u.modules == "":
		return imagecache.Manifest{}, errors.New("the packages have no modules (lib/modules/*)")
	case u.kernel != u.modules:
		return imagecache.Manifest{}, fmt.Errorf("the kernel is %s, but the modules are for %s", u.kernel, u.modules)
	}
	return imagecache.Manifest{Release: u.kernel, Files: u.files}, nil
}
