package images

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/modfile"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/testcache"
)

// inputs collects what a result depends on, for the result's stamp. It passes each file and variable on
// to the go command's cache of test results, which does not see by itself what the compiler and apt
// read. A nil *inputs only passes on.
type inputs struct {
	began time.Time // before the build has read anything

	mu      sync.Mutex
	files   map[string]bool // true if the file must exist
	env     []string        // names of variables
	unknown error           // why not all inputs are known
}

func newInputs() *inputs { return &inputs{began: time.Now(), files: map[string]bool{}} }

// depends declares that the result depends on files: on whether they exist, on the content of regular
// files, and on the names in directories.
func (in *inputs) depends(files ...string) {
	testcache.Depends(files...)
	in.add(false, files...)
}

func (in *inputs) add(mustExist bool, files ...string) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, f := range files {
		if f, err := filepath.Abs(f); err == nil {
			in.files[f] = in.files[f] || mustExist
		}
	}
}

// dependsOnEnv declares that the result depends on environment variables.
func (in *inputs) dependsOnEnv(names ...string) {
	testcache.DependsOnEnv(names...)
	if in != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.env = append(in.env, names...)
	}
}

// never declares that the result depends on something else. It gets no stamp, and no test that uses it
// is cached.
func (in *inputs) never(why error) {
	testcache.Never()
	in.noStamp(why)
}

// noStamp declares that the result depends on something that a stamp does not hold.
func (in *inputs) noStamp(why error) {
	if in != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.unknown = errors.Join(in.unknown, why)
	}
}

// wanted reports whether anybody wants to know the inputs.
func (in *inputs) wanted() bool { return in != nil || testcache.Active() }

// A buildInputs holds the files and flags, besides the sources, that decide what the go command
// compiles and how.
type buildInputs struct {
	dir       string   // where the go command looks for go.mod and go.work, and then above
	mod, work string   // go.mod and go.work; "", os.DevNull or "off" if there is none
	fixedWork bool     // GOWORK decides, and no directory is searched for go.work
	settings  []string // the files that "go env -w" writes
	toolchain []string // files that change when the toolchain does
	flags     []string // of GOFLAGS
	pinned    string   // a go.mod that the go command uses instead, but for finding its module; "" if there is none
}

// note declares that a result depends on packages, which "go list" listed with flags.
func (b buildInputs) note(in *inputs, packages []listedPackage, flags ...string) {
	if !in.wanted() {
		return
	}
	in.depends(b.files(flags)...)
	for _, file := range []string{b.mod, b.work} {
		if filepath.IsAbs(file) && file != os.DevNull {
			in.add(true, file)
		}
	}
	in.add(false, b.toolchain...)
	for _, p := range packages {
		if p.fixed() != nil {
			continue // go.sum has the checksum.
		}
		in.depends(p.files()...)
	}
}

// files returns a package's directory, because a file may be added to it, its files, and all
// directories from which it embeds files.
func (p listedPackage) files() []string {
	files := []string{p.Dir}
	for _, name := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.SysoFiles, p.EmbedFiles, p.IgnoredGoFiles, p.IgnoredOtherFiles) {
		files = append(files, absolute(p.Dir, name))
	}
	if p.Name == "main" {
		files = append(files, filepath.Join(p.Dir, "default.pgo"))
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
				files = append(files, path)
			}
			return nil // A file that cannot be read is not embedded.
		})
	}
	if m := p.Module; m != nil && m.Dir != "" {
		// A go.mod in a directory between the module's root and the package makes another module.
		for dir := filepath.Dir(p.Dir); strings.HasPrefix(dir, m.Dir+"/"); dir = filepath.Dir(dir) {
			files = append(files, filepath.Join(dir, "go.mod"))
		}
	}
	return files
}

// files returns the files of the module and the workspace, and the files that flags name.
func (b buildInputs) files(flags []string) []string {
	files := slices.Clone(b.settings)
	for _, f := range slices.Concat(b.flags, flags) {
		name, value, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		switch name {
		case "modfile":
			files = append(files, moduleFiles(absolute(b.dir, value))...)
		case "overlay":
			files = append(files, overlayFiles(b.dir, absolute(b.dir, value))...)
		case "pgo":
			if value != "auto" && value != "off" {
				files = append(files, absolute(b.dir, value))
			}
		}
	}
	if b.pinned != "" {
		files = append(files, moduleFiles(b.pinned)...)
	}
	found := func(file string) bool { return file != "" && file != os.DevNull && file != "off" }
	starts := []string{b.dir}
	for _, file := range []string{b.mod, b.work} {
		if found(file) {
			starts = append(starts, filepath.Dir(file))
		}
	}
	for _, dir := range starts {
		if dir == "" {
			continue
		}
		// A file in a directory above counts too, even one that is added later.
		for inModule := true; ; dir = filepath.Dir(dir) {
			if inModule {
				files = append(files, filepath.Join(dir, "go.mod"))
				inModule = found(b.mod) && dir != filepath.Dir(b.mod)
			}
			if !b.fixedWork {
				files = append(files, filepath.Join(dir, "go.work"))
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if found(b.mod) {
		files = append(files, moduleFiles(b.mod)...)
		files = append(files, filepath.Join(filepath.Dir(b.mod), "vendor", "modules.txt"))
	}
	if found(b.work) {
		files = append(files, workspaceFiles(b.work)...)
		files = append(files, filepath.Join(filepath.Dir(b.work), "vendor", "modules.txt"))
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

// overlayFiles returns the file that an -overlay flag names and the files that replace others. The
// names of the others are relative to dir.
func overlayFiles(dir, overlay string) []string {
	files := []string{overlay}
	data, err := regular.ReadFile(overlay)
	if err != nil {
		return files
	}
	var content struct{ Replace map[string]string }
	if json.Unmarshal(data, &content) == nil {
		for _, file := range content.Replace {
			if file != "" { // An empty name hides a file.
				files = append(files, absolute(dir, file))
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
