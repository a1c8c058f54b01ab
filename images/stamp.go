package images

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// A stamp is a result with the states of everything that it depends on. As long as the states are the
// same, the result is found without the go command, which would take a second. A stamp that cannot be
// read or written only costs time.
//
// A file that changes gets another state: another time of change, which the kernel sets, in
// nanoseconds. But the kernel's file times are coarser than that, and a file may change while the
// build reads it. So a result gets no stamp if one of its files may have changed since the build
// began, as a file in git's index is not trusted if it is as new as the index.
type stamp[T result] struct {
	Result  T               `json:"result"`
	Files   []regular.State `json:"files"` // of the names in Names; zero for a file that is missing
	Names   []string        `json:"names"`
	Env     []string        `json:"env"`     // names of variables
	Outputs []regular.State `json:"outputs"` // of the result's files; zero if their hashes must be checked
}

// A result is an Image or an Executable.
type result interface {
	files() []hashedFile
}

// A hashedFile is a file of a result.
type hashedFile struct{ path, sum string }

func (i Image) files() []hashedFile {
	return []hashedFile{{i.Kernel, i.KernelSHA256}, {i.Initramfs, i.InitramfsSHA256}}
}

func (e Executable) files() []hashedFile { return []hashedFile{{e.Path, e.SHA256}} }

// stamped returns the result that the cache has a stamp for. If it has none, or an input has changed,
// stamped calls build and stamps its result. The kind and the things, together with the options and
// the environment, identify the result.
func stamped[T result](ctx context.Context, t target.Target, o Options, kind string, things []string, build func(Options) (T, error)) (T, error) {
	if ctx.Err() != nil { // a stamp would answer all the same
		return *new(T), fail("build "+kind, t.Name, context.Cause(ctx), "")
	}
	c, err := openCache(o)
	if err != nil {
		return *new(T), err
	}
	file := ""
	if key, err := stampKey(c, t, o, kind, things); err == nil {
		file = c.Path(imagecache.Stamps, key)
		if r, ok := readStamp[T](ctx, c, file); ok {
			return r, nil
		}
	}
	if o.missing != nil {
		o.missing()
	}
	o.inputs = newInputs()
	r, err := build(o)
	if err == nil && file != "" {
		if s, ok := newStamp(r, o.inputs); ok {
			s.write(ctx, c, file)
			return s.result(), nil
		}
	}
	return r, err
}

// result returns the result with the names of its inputs.
func (s *stamp[T]) result() T {
	if image, ok := any(&s.Result).(*Image); ok {
		image.Inputs = s.Names
	}
	return s.Result
}

//go:embed *.go
var sources embed.FS

// sourcesSum is the hash of this package's own sources, because another version of the package may make
// another result from the same inputs. The tests are among them, so that no list of files can lack one.
var sourcesSum = sync.OnceValue(func() string {
	var all []byte
	names, _ := fs.Glob(sources, "*") // The files are in this program.
	for _, name := range names {
		data, _ := sources.ReadFile(name)
		all = append(all, data...)
	}
	return hashBytes(all)
})

// stampKey returns the name of a stamp. It is a hash of everything that decides the result and is no
// file.
func stampKey(c *imagecache.Cache, t target.Target, o Options, kind string, things []string) (string, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return "", err
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		return "", err
	}
	tested, err := imagecache.Tested(t.Name)
	if err != nil {
		return "", err
	}
	kernel, err := kernelKey(t, c, o.Kernel)
	if err != nil {
		return "", err
	}
	modules := o.Modules
	if modules != "" {
		if modules, err = filepath.Abs(modules); err != nil {
			return "", err
		}
	}
	files := make(map[string]string)
	for name, file := range o.Files {
		if files[name], err = filepath.Abs(file); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal([]any{sourcesSum(), c.Path(), t, tested, initramfs.Program, initramfs.ModulesFile,
		kind, things, dir, tool, kernel, modules, files, goEnviron()})
	return hashBytes(data), err
}

// kernelKey returns what identifies the kernel that a name in Options.Kernel stands for.
func kernelKey(t target.Target, c *imagecache.Cache, name string) (key string, err error) {
	if name == "" {
		if name, err = defaultKernel(t, c); err != nil {
			return "", err
		}
	}
	switch {
	case name == gokrazyKernel: // another version of guesthouse pins another one
		set, err := imagecache.Gokrazy(t.Name)
		return name + " " + set.Key(), err
	case name == hostKernel: // another one may run after the next boot of the host
		release, err := hostRelease()
		return hostKernel + " " + release, err
	case IsKernelName(name):
		return name, nil
	}
	return filepath.Abs(name)
}

// goEnviron returns the environment variables that the go command reads, but not those that only
// change how a Go program runs.
func goEnviron() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for _, v := range os.Environ() {
			if name, _, _ := strings.Cut(v, "="); readByGo(name) && !yield(v) {
				return
			}
		}
	})
}

func readByGo(name string) bool {
	switch name {
	case "GOCOVERDIR", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GORACE", "GOTRACEBACK":
		return false
	case "AR", "CC", "CXX", "FC", "GCCGO", "HOME", "PKG_CONFIG", "XDG_CONFIG_HOME":
		return true
	}
	return strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_")
}

// stampable returns an error if the flags make a build depend on more than files that inputs know.
func stampable(flags []string) error {
	for _, f := range flags {
		name, _, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		switch name {
		case "a", "asan", "asmflags", "buildmode", "cover", "covermode", "coverpkg", "gcflags", "ldflags", "mod",
			"modfile", "msan", "overlay", "p", "pgo", "race", "tags", "trimpath", "v", "x":
			if name != "a" && !strings.Contains(f, "=") && slices.Contains([]string{"asmflags", "buildmode", "covermode",
				"coverpkg", "gcflags", "ldflags", "mod", "modfile", "overlay", "p", "pgo", "tags"}, name) {
				return fmt.Errorf("build flag %s: its value is another word", f)
			}
		default:
			return fmt.Errorf("build flag %s", f)
		}
	}
	return nil
}

// readStamp returns the result of a stamp if no input has changed and the result's files are there.
func readStamp[T result](ctx context.Context, c *imagecache.Cache, file string) (r T, ok bool) {
	data, err := regular.ReadFile(file)
	if err != nil {
		return r, false
	}
	var s stamp[T]
	if json.Unmarshal(data, &s) != nil || len(s.Files) != len(s.Names) || len(s.Outputs) != len(s.Result.files()) {
		return r, false
	}
	for i, name := range s.Names {
		if is, ok := stateNow(name); !ok || is != s.Files[i] {
			return r, false
		}
	}
	changed := false
	for i, f := range s.Result.files() {
		is, err := regular.StateAt(f.path)
		if err != nil {
			return r, false
		}
		if is != s.Outputs[i] {
			if sum, err := imagecache.HashFile(f.path); err != nil || sum != f.sum {
				return r, false
			}
			s.Outputs[i], changed = settled(is), true
		}
		if markUsed(c, f.path) {
			if is, err = regular.StateAt(f.path); err != nil {
				return r, false
			}
			s.Outputs[i], changed = is, true
		}
	}
	for i, f := range s.Result.files() {
		if s.Outputs[i] != (regular.State{}) {
			regular.Know(s.Outputs[i], f.sum)
		}
	}
	if changed {
		s.write(ctx, c, file)
	}
	if testcache.Active() {
		_, _ = testcache.LookPath("go")
		testcache.DependsOnEnv(s.Env...)
		testcache.Depends(s.Names...)
	}
	return s.result(), true
}

// markEvery is how often a file of the cache is marked as used. A mark changes the file's state.
const markEvery = 10 * time.Minute

// markUsed marks the entry of the cache with a file as used, if it was not marked lately.
func markUsed(c *imagecache.Cache, file string) bool {
	if !strings.HasPrefix(file, c.Path()+"/") {
		return false
	}
	entry := file // a kernel is in an entry that is a directory
	for filepath.Dir(filepath.Dir(entry)) != c.Path() {
		entry = filepath.Dir(entry)
	}
	is, err := regular.StateAt(entry)
	if err != nil || time.Since(time.Unix(0, is.Modified)) < markEvery {
		return false
	}
	store.Use(entry)
	return true
}

// newStamp returns the stamp of a result. It returns false if the result does not only depend on files
// that were the same since the build began.
func newStamp[T result](r T, in *inputs) (*stamp[T], bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.unknown != nil {
		return nil, false
	}
	s := &stamp[T]{Result: r, Env: in.env}
	for name, mustExist := range in.files {
		is, ok := stateNow(name)
		if !ok || is.ChangedSince(in.began) || mustExist && is == (regular.State{}) {
			return nil, false
		}
		s.Names, s.Files = append(s.Names, name), append(s.Files, is)
	}
	for _, f := range r.files() {
		is, err := regular.StateAt(f.path)
		if err != nil {
			return nil, false
		}
		s.Outputs = append(s.Outputs, settled(is))
	}
	return s, true
}

// stateNow returns the state of a file, which is zero if the file is missing. It returns false if the
// state is unknown.
func stateNow(name string) (regular.State, bool) {
	is, err := regular.StateAt(name)
	return is, err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// settled returns the state of a file whose content was checked, or zero if the file is so new that a
// change at this moment would leave the state as it is.
func settled(is regular.State) regular.State {
	if is.ChangedSince(time.Now()) {
		return regular.State{}
	}
	return is
}

// write writes the stamp. It does not wait until the disk has it: half a stamp is no stamp.
func (s *stamp[T]) write(ctx context.Context, c *imagecache.Cache, file string) {
	data, err := json.Marshal(s)
	if err != nil {
		return
	}
	b, err := c.Build(ctx, imagecache.Stamps)
	if err != nil {
		return
	}
	defer b.Close()
	if os.WriteFile(b.Path("stamp"), data, 0o666) == nil && os.Rename(b.Path("stamp"), file) == nil {
		c.Prune(imagecache.Stamps)
	}
}
