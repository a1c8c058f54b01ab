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

// buildInputs are the files that decide which sources the go command compiles, and how.
type buildInputs struct {
	mod, work string   // go.mod and go.work, "" or os.DevNull or "off" where there is none
	settings  []string // what "go env -w" writes
	flags     []string // of GOFLAGS
}

// note tells go's cache of test results that this test depends on packages which were listed
// with further flags. The compiler's own process reads them, which that cache does not see.
func (b buildInputs) note(packages []listedPackage, flags ...string) {
	if !testcache.Active() {
		return
	}
	testcache.Depends(b.files(flags)...)
	for _, p := range packages {
		if p.fixed() != nil {
			continue // go.sum has the checksum
		}
		testcache.Depends(p.Dir) // where a file may be added
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
				return nil // what cannot be read was not embedded
			})
		}
	}
}

// files are those of modules and workspaces, and what flags name.
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
		// A workspace that somebody makes above it counts too.
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

// moduleFiles are a go.mod, its sums, and the go.mod of each directory that replaces a module.
func moduleFiles(mod string) []string {
	files := []string{mod, strings.TrimSuffix(mod, ".mod") + ".sum"}
	data, err := regular.ReadFile(mod)
	if err != nil {
		return files
	}
	f, err := modfile.Parse(mod, data, nil)
	if err != nil {
		return files // the go command says so
	}
	return append(files, replacements(filepath.Dir(mod), f.Replace)...)
}

// workspaceFiles are a go.work, its sums, and the files of its modules.
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

// overlayFiles are the file that an -overlay flag names and the files that it puts in place
// of others.
func overlayFiles(overlay string) []string {
	files := []string{overlay}
	data, err := regular.ReadFile(overlay)
	if err != nil {
		return files
	}
	var content struct{ Replace map[string]string }
	if json.Unmarshal(data, &content) == nil {
		for _, file := range content.Replace {
			if file != "" { // of a file that is hidden
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
