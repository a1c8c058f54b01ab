package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// A goTool is the go command that a module selects, with an environment in which its
// output depends only on the sources and on the version of Go. The method in sets the
// directory for temporary files.
type goTool struct {
	dir     string // the directory in which package paths are resolved
	version string // "go1.26.1"
	path    string
	env     []string
	inputs  buildInputs
}

func findGo(ctx context.Context, o Options) (*goTool, error) {
	const step = "find go"
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fail(step, o.Dir, err, "")
	}
	front, err := testcache.LookPath("go")
	if err != nil {
		return nil, fail(step, dir, err, "install Go, which compiles the guest program on this host")
	}
	var out bytes.Buffer
	// The go command in PATH may select another toolchain for the module in dir.
	// Later commands run in generated directories, where it would select none.
	if _, err := run(ctx, command{dir: dir, path: front, args: []string{"env", "-json"}, stdout: &out}); err != nil {
		return nil, fail(step, dir, err, "")
	}
	var variables map[string]string
	var env struct{ GOVERSION, GOROOT, GOTOOLDIR, GOFLAGS, GOMOD, GOWORK, GOENV string }
	if err := errors.Join(json.Unmarshal(out.Bytes(), &variables), json.Unmarshal(out.Bytes(), &env)); err != nil {
		return nil, fail(step, dir, err, "")
	}
	o.inputs.dependsOnEnv(slices.Collect(maps.Keys(variables))...)
	if (env.GOMOD == "" || env.GOMOD == os.DevNull) && env.GOWORK == "" {
		return nil, fail("build in", dir, errors.New("not in a Go module"), "change to the directory of the guest's module, or set Options.Dir to it")
	}
	// The variable must not be empty: the setting of "go env -w" would replace it.
	flags := "-buildvcs=false"
	for _, f := range strings.Fields(env.GOFLAGS) {
		name, _, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		if slices.Contains([]string{"mod", "modfile", "overlay"}, name) {
			flags += " " + f
		}
	}
	bin := filepath.Join(env.GOROOT, "bin")
	toolchain, err := toolchainFiles(front, env.GOROOT, env.GOTOOLDIR, env.GOVERSION)
	if err != nil {
		o.inputs.noStamp(err)
	}
	return &goTool{
		dir:     dir,
		version: env.GOVERSION,
		path:    filepath.Join(bin, "go"),
		env: append(os.Environ(),
			"GOROOT="+env.GOROOT, "GOTOOLCHAIN=local", "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
			"GO111MODULE=on", "GOFLAGS="+flags, "CGO_ENABLED=0",
			// u-root's tools look for sources in the directories that these name.
			"GBB_PATH=", "UROOT_SOURCE="),
		inputs: buildInputs{
			dir: dir, mod: env.GOMOD, work: env.GOWORK, fixedWork: os.Getenv("GOWORK") != "",
			settings: []string{env.GOENV, filepath.Join(env.GOROOT, "go.env")}, toolchain: toolchain,
			flags: strings.Fields(env.GOFLAGS),
		},
	}, nil
}

// toolchainFiles returns files that change when the toolchain does. Front is the go command in PATH,
// which may select the toolchain in another GOROOT. It returns an error if the front is a script or a
// wrapper, which may depend on anything, or if the toolchain is no release.
func toolchainFiles(front, goroot, tools, version string) ([]string, error) {
	real, err := filepath.EvalSymlinks(front)
	if err != nil {
		return nil, err
	}
	own := filepath.Join(filepath.Dir(filepath.Dir(real)), "VERSION")
	if _, err := os.Stat(own); err != nil || strings.HasPrefix(version, "devel") {
		return nil, fmt.Errorf("%s is not the go command of a released Go: %s", front, version)
	}
	files := []string{front, own, filepath.Join(goroot, "VERSION"), filepath.Join(goroot, "bin", "go")}
	for _, tool := range []string{"asm", "compile", "link"} {
		files = append(files, filepath.Join(tools, tool))
	}
	return files, nil
}

// environ returns the environment that compiles for a target. It selects the oldest
// processor of the architecture, because the model that QEMU emulates is an old one.
func (g *goTool) environ(t target.Target) []string {
	return append(slices.Clip(g.env), "GOOS=linux", "GOARCH="+t.GOARCH, "GOARM="+t.GOARM,
		"GO386=sse2", "GOAMD64=v1", "GOARM64=v8.0")
}

// buildFlags leave the place and the time of the build out of the program, and the
// tables for debuggers. Panics still print stack traces.
var buildFlags = []string{"-trimpath", "-ldflags=-s -w -buildid="}

// A listedPackage is a package in the output of "go list -json".
type listedPackage struct {
	Dir, ImportPath, Name                          string
	Standard                                       bool
	GoFiles, SFiles, HFiles, SysoFiles, EmbedFiles []string
	IgnoredGoFiles, IgnoredOtherFiles              []string // files whose build constraints exclude this target
	Module                                         *listedModule
}

type listedModule struct {
	Path, Version, Sum, Dir string
	Replace                 *listedModule
}

// fixed returns the module whose checksum fixes the sources of the package. It returns nil if the
// sources may change: in a workspace, in a directory that replaces a module, in a vendor directory.
func (p listedPackage) fixed() *listedModule {
	m := p.Module
	if m != nil && m.Replace != nil {
		m = m.Replace
	}
	if m == nil || m.Version == "" || m.Sum == "" {
		return nil
	}
	return m
}

// list returns packages and all packages that they import, without the standard library. The
// arguments are those of "go list": flags and packages.
func (g *goTool) list(ctx context.Context, t target.Target, args []string) (all []listedPackage, err error) {
	var out bytes.Buffer
	args = append([]string{"list", "-deps",
		"-json=Dir,ImportPath,Name,Standard,GoFiles,SFiles,HFiles,SysoFiles,EmbedFiles,IgnoredGoFiles,IgnoredOtherFiles,Module"}, args...)
	if _, err := run(ctx, command{dir: g.dir, env: g.environ(t), path: g.path, args: args, stdout: &out}); err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(&out); dec.More(); {
		var p listedPackage
		if err := dec.Decode(&p); err != nil {
			return nil, err
		}
		if !p.Standard {
			all = append(all, p)
		}
	}
	return all, nil
}

// sources identifies the sources of packages and of all packages that they import,
// without the standard library: the checksums of modules, and the hashes of files
// that no checksum fixes.
func (g *goTool) sources(ctx context.Context, t target.Target, args []string, in *inputs) ([]string, error) {
	packages, err := g.list(ctx, t, args)
	if err != nil {
		return nil, err
	}
	g.inputs.note(in, packages)
	var all []string
	for _, p := range packages {
		if m := p.fixed(); m != nil {
			all = append(all, m.Path+" "+m.Version+" "+m.Sum)
			continue
		}
		for _, name := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.SysoFiles, p.EmbedFiles) {
			sum, err := imagecache.HashFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			all = append(all, fmt.Sprintf("%s/%s %s", p.ImportPath, name, sum))
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// in returns a copy of g that makes its temporary files in another directory.
func (g *goTool) in(tmp string) *goTool {
	c := *g
	c.env = append(slices.Clip(g.env), "TMPDIR="+tmp, "GOTMPDIR="+tmp)
	return &c
}
