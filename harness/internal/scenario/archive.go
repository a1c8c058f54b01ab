package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// An archive is a text in the format txtar: a script, and files behind it.
type archive struct {
	script []byte
	files  []file
}

type file struct {
	name string
	data []byte
}

// parseArchive parses a txtar text. As in all implementations of the format, a line "-- NAME --" begins a file, any other
// line is content, and a last line without an end gets one.
func parseArchive(text []byte) *archive {
	a := new(archive)
	into := &a.script
	for line := range bytes.Lines(text) {
		if name, ok := fileName(line); ok {
			a.files = append(a.files, file{name: name})
			into = &a.files[len(a.files)-1].data
			continue
		}
		*into = append(*into, line...)
		if !bytes.HasSuffix(line, []byte("\n")) {
			*into = append(*into, '\n')
		}
	}
	return a
}

// fileName returns the name in a line that begins a file.
func fileName(line []byte) (name string, ok bool) {
	text := strings.TrimRight(string(line), "\r\n")
	name, ok = strings.CutPrefix(text, "-- ")
	if ok {
		name, ok = strings.CutSuffix(name, " --")
	}
	name = strings.TrimSpace(name)
	return name, ok && name != ""
}

// format returns the text of the archive.
func (a *archive) format() []byte {
	b := bytes.Clone(a.script)
	for _, f := range a.files {
		b = fmt.Appendf(b, "-- %s --\n", f.name)
		b = append(b, f.data...)
		if len(f.data) > 0 && f.data[len(f.data)-1] != '\n' {
			b = append(b, '\n')
		}
	}
	return b
}

// extract writes the files below a directory.
func (a *archive) extract(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	seen := make(map[string]bool)
	for _, f := range a.files {
		name := filepath.FromSlash(f.name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the file %q is outside the scenario's directory", f.name)
		}
		if seen[filepath.Clean(name)] {
			return fmt.Errorf("the file %q is there twice", f.name)
		}
		seen[filepath.Clean(name)] = true
		if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := root.WriteFile(name, f.data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
