package imagecache

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"guesthouse.example/internal/regular"
)

// A Manifest lists the files of a directory of the cache.
type Manifest struct {
	Debs    KernelSet         `json:"debs,omitempty"`    // the packages of a kernel
	Release string            `json:"release,omitempty"` // of a kernel, as uname -r prints it
	Files   map[string]string `json:"files"`             // path in the directory → SHA-256
}

// ManifestName is the name of a manifest in its directory.
const ManifestName = "manifest.json"

// Write writes the manifest into its directory.
func (m Manifest) Write(dir string) error {
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), append(data, '\n'), 0o666)
}

// ReadManifest reads the manifest of a directory. Its error wraps fs.ErrNotExist if there is no such
// directory; any other error means that the directory is damaged.
func ReadManifest(dir string) (Manifest, error) {
	var m Manifest
	data, err := regular.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		if _, e := os.Stat(dir); e == nil {
			err = fmt.Errorf("%s: missing", ManifestName)
		}
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", ManifestName, err)
	}
	return m, nil
}

// Open opens a file of the manifest's directory and checks its hash.
func (m Manifest) Open(dir, name string) (*os.File, error) {
	want, ok := m.Files[name]
	if !ok {
		return nil, fmt.Errorf("%s: not in %s", name, ManifestName)
	}
	f, err := regular.Open(filepath.Join(dir, name))
	if err != nil {
		// The directory exists, so the caller must not find fs.ErrNotExist.
		return nil, fmt.Errorf("%s: %v", name, err)
	}
	got, err := regular.Sum(f)
	if err == nil && got != want {
		err = fmt.Errorf("its SHA-256 is %s, not %s", got, want)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// HashFile reads a file and returns its SHA-256 in hexadecimal. Unlike regular.SHA256 it remembers
// nothing, so it also notices damage that leaves the file's State unchanged.
func HashFile(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return regular.Sum(f)
}
