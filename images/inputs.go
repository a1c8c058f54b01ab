package images

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/testcache"
)

// buildInputs are the files and flags, besides the sources, that decide what the go command compiles
// and how.
type buildInputs struct {
	mod, work string   // go.mod and go.work; "", os.DevNull or "off" if there is none
	settings  []string // the files that "go env -w" writes
	flags     []string // of GOFLAGS
}

// note tells the go command's cache of test results that this test depends on packages, which "go
// list" listed with flags. The cache does not see that by itself, because another process, the
// compiler, reads the packages.
func (b buildInputs) note(packages []listedPackage, flags ...string) {
	if !testcache.Active() {
		return
	}
	testcache.Depends(b.files(flags)...)
	for _, p := range packages {
		if p.fixed() != nil {
			continue // go.sum has the checksum.
		}
		testcache.Depends(p.Dir) // A file may be added to it.
		for _, name := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.EmbedFiles, p.IgnoredGoFiles, p.IgnoredOtherFiles) {
			testcache.Depends(filepath.Join(p.Dir, name))
		}
		var roots []string // of embedded directories
		for _, name := range p.EmbedFiles {
			if root, _, below := strings.Cut(name, "/"); below && !slices.Contains(roots, root) {
				roots = append(roots, root)
			}
		}
		for _, root := range roots {
			_ = filepath.WalkDir(filepath.Join(p.Dir, root), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					testcache.Depends(path)
				}
				return nil // A file that cannot be read is not embedded.
			})
		}
	}
}

// files returns the files of the module and the workspace, and the files that flags name.
func (b buildInputs) files(flags []string) []string {
	files := slices.Clone(b.settings)
	for _, f := range slices.Concat(b.flags, flags) {
		name, value, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		switch name {
		case "modfile":
			files = append(files, moduleFiles(value)...)
		case "overlay":
			files = append(files, overlayFiles(value)...)
		}
	}
	for _, mod := range []string{b.mod, b.work} {
		if mod == "" || mod == os.DevNull || mod == "off" {
			continue
		}
		// A workspace in a directory above counts too, even one that is added later.
		for dir := filepath.Dir(mod); ; dir = filepath.Dir(dir) {
			files = append(files, filepath.Join(dir, "go.work"))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if b.mod != "" && b.mod != os.DevNull {
		files = append(files, moduleFiles(b.mod)...)
		files = append(files, filepath.Join(filepath.Dir(b.mod), "vendor", "modules.txt"))
	}
	if b.work != "" && b.work != "off" {
		files = append(files, workspaceFiles(b.work)...)
	}
	return files
}

// moduleFiles returns a go.mod, its go.sum, and the go.mod of each directory that replaces a module.
func moduleFiles(mod string) []string {
	files := []string{mod, strings.TrimSuffix(mod, ".mod") + ".sum"}
	data, err := regular.ReadFile(mod)
	if err != nil {
		return files
	}
	f, err := modfile.Parse(mod, data, nil)
	if err != nil {
		return files // The go command reports it.
	}
	return append(files, replacements(filepath.Dir(mod), f.Replace)...)
}

// workspaceFiles returns a go.work, its go.work.sum, and the files of its modules.
func workspaceFiles(work string) []string {
	files := []string{work, work + ".sum"}
	data, err := regular.ReadFile(work)
	if err != nil {
		return files
	}
	f, err := modfile.ParseWork(work, data, nil)
	if err != nil {
		return files
	}
	for _, use := range f.Use {
		files = append(files, moduleFiles(filepath.Join(absolute(filepath.Dir(work), use.Path), "go.mod"))...)
	}
	return append(files, replacements(filepath.Dir(work), f.Replace)...)
}

func replacements(dir string, all []*modfile.Replace) (files []string) {
	for _, r := range all {
		if r.New.Version == "" {
			files = append(files, filepath.Join(absolute(dir, r.New.Path), "go.mod"))
		}
	}
	return files
}

// overlayFiles returns the file that an -overlay flag names and the files that replace others.
func overlayFiles(overlay string) []string {
	files := []string{overlay}
	data, err := regular.ReadFile(overlay)
	if err != nil {
		return files
	}
	var content struct{ Replace map[string]string }
	if json.Unmarshal(data, &content) == nil {
		for _, file := range content.Replace {
			if file != "" { // An empty name hides a file.
				files = append(files, file)
			}
		}
	}
	return files
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
