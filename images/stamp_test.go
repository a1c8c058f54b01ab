package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// A stampRig builds the program of a module in a directory of its own.
type stampRig struct {
	t   *testing.T
	dir string // has the module, in main, and other directories
	o   Options
	pkg string
}

// newStampRig returns a rig whose program holds the texts of several files.
func newStampRig(t *testing.T) *stampRig {
	t.Helper()
	dir := t.TempDir()
	r := &stampRig{t: t, dir: dir, pkg: ".", o: Options{Cache: filepath.Join(dir, "cache"), Dir: filepath.Join(dir, "mod/main")}}
	t.Setenv("GOENV", filepath.Join(dir, "goenv"))
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOPROXY", "off")
	t.Setenv("GONOSUMDB", "*")
	r.write("mod/go.mod", "module m\n\ngo 1.26.0\n\nrequire other v0.0.0\n\nreplace other => ../other\n")
	r.write("mod/main/main.go", `package main

import (
	"embed"
	"m/deep/lib"
	"other"
)

//go:embed one.txt files
var files embed.FS

var added string

func main() {
	text, _ := files.ReadFile("one.txt")
	println("main-one", added, string(text), lib.Text, other.Text)
}
`)
	r.write("mod/main/one.txt", "embed-one")
	r.write("mod/main/files/a.txt", "files-one")
	r.write("mod/deep/lib/lib.go", "package lib\n\nconst Text = \"lib-one\"\n")
	r.write("other/go.mod", "module other\n\ngo 1.26\n")
	r.write("other/other.go", "package other\n\nconst Text = \"other-one\"\n")
	return r
}

func (r *stampRig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *stampRig) write(name, text string) {
	r.t.Helper()
	require.NoError(r.t, os.MkdirAll(filepath.Dir(r.path(name)), 0o777))
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(text), 0o666))
}

// edit replaces a text in a file. It keeps the time of modification, and the size if the texts have
// the same.
func (r *stampRig) edit(name, old, new string) {
	r.t.Helper()
	info, err := os.Stat(r.path(name))
	require.NoError(r.t, err)
	text, err := os.ReadFile(r.path(name))
	require.NoError(r.t, err)
	require.Contains(r.t, string(text), old)
	require.NoError(r.t, os.WriteFile(r.path(name), bytes.ReplaceAll(text, []byte(old), []byte(new)), 0o666))
	require.NoError(r.t, os.Chtimes(r.path(name), info.ModTime(), info.ModTime()))
}

// settle waits until a change of a file would give it another state than all earlier ones have.
func (r *stampRig) settle() {
	r.t.Helper()
	now := time.Now()
	probe := filepath.Join(r.t.TempDir(), "probe")
	require.Eventually(r.t, func() bool {
		require.NoError(r.t, os.WriteFile(probe, nil, 0o666))
		is, err := regular.StateAt(probe)
		require.NoError(r.t, err)
		return is.ChangedSince(now.Add(60 * time.Millisecond))
	}, time.Minute, time.Millisecond)
}

// program returns the program and whether it was built.
func (r *stampRig) program() (text string, built bool) {
	r.t.Helper()
	return r.programWhile(func() {})
}

// programWhile calls during while the program is built.
func (r *stampRig) programWhile(during func()) (text string, built bool) {
	r.t.Helper()
	tgt, err := target.Lookup("x86_64")
	require.NoError(r.t, err)
	e, err := stamped(r.t.Context(), tgt, r.o, "program", append([]string{r.pkg}, r.o.BuildFlags...), func(o Options) (Executable, error) {
		built = true
		e, err := buildProgram(r.t.Context(), tgt, r.pkg, o)
		during()
		return e, err
	})
	require.NoError(r.t, err)
	data, err := os.ReadFile(e.Path)
	require.NoError(r.t, err)
	require.Equal(r.t, e.SHA256, hashBytes(data))
	return string(data), built
}

// requireStamped requires that the program is found without a build.
func (r *stampRig) requireStamped() {
	r.t.Helper()
	r.settle()
	if _, built := r.program(); built { // for example because the files were new
		r.settle()
		since, stamps := time.Now(), r.stamps()
		_, built = r.program()
		require.False(r.t, built, "nothing has changed since %v; stamps before: %s\nstamps now: %s", since, stamps, r.stamps())
	}
}

// stamps describes the stamps and the present states of their inputs.
func (r *stampRig) stamps() (text string) {
	files, err := filepath.Glob(r.path("cache/stamps/*"))
	require.NoError(r.t, err)
	for _, file := range files {
		var s stamp[Executable]
		data, err := os.ReadFile(file)
		require.NoError(r.t, err)
		text += "\n" + file + ":"
		if err := json.Unmarshal(data, &s); err != nil {
			text += " " + err.Error()
		}
		for i, name := range s.Names {
			now, known := stateNow(name)
			text += fmt.Sprintf("\n\t%s: %+v, now %+v %v", name, s.Files[i], now, known)
		}
	}
	return text
}

// A result is built again after each change of anything that it depends on.
func TestAStampIsNotTrustedAfterAChange(t *testing.T) {
	same := "main-one"
	for name, c := range map[string]struct {
		prepare, change func(*stampRig)
		holds           string // what the program holds after the change
	}{
		"a file, with the same size and time of modification": {change: func(r *stampRig) { r.edit("mod/main/main.go", "main-one", "main-two") }, holds: "main-two"},
		"a file that is imported":                             {change: func(r *stampRig) { r.edit("mod/deep/lib/lib.go", "lib-one", "lib-two") }, holds: "lib-two"},
		"a new file in the package": {change: func(r *stampRig) {
			r.write("mod/main/new.go", "package main\n\nfunc init() { added = \"added-file\" }\n")
		}, holds: "added-file"},
		"a removed file in the package": {
			prepare: func(r *stampRig) { r.write("mod/main/new.go", "package main\n\nfunc init() { println(\"gone\") }\n") },
			change:  func(r *stampRig) { require.NoError(r.t, os.Remove(r.path("mod/main/new.go"))) }, holds: same},
		"an embedded file":                    {change: func(r *stampRig) { r.edit("mod/main/one.txt", "embed-one", "embed-two") }, holds: "embed-two"},
		"a new file in an embedded directory": {change: func(r *stampRig) { r.write("mod/main/files/sub/b.txt", "files-two") }, holds: "files-two"},
		"a new file in an embedded subdirectory": {
			prepare: func(r *stampRig) { r.write("mod/main/files/sub/b.txt", "files-two") },
			change:  func(r *stampRig) { r.write("mod/main/files/sub/c.txt", "files-three") }, holds: "files-three"},
		"a file of a directory that replaces a module": {change: func(r *stampRig) { r.edit("other/other.go", "other-one", "other-two") }, holds: "other-two"},
		"another replacement": {
			prepare: func(r *stampRig) {
				r.write("another/go.mod", "module other\n\ngo 1.26\n")
				r.write("another/other.go", "package other\n\nconst Text = \"other-new\"\n")
			},
			change: func(r *stampRig) { r.edit("mod/go.mod", "../other", "../another") }, holds: "other-new"},
		"a go.work above": {change: func(r *stampRig) {
			r.write("third/go.mod", "module other\n\ngo 1.26\n")
			r.write("third/other.go", "package other\n\nconst Text = \"other-work\"\n")
			r.write("go.work", "go 1.26.0\n\nuse ./mod\n\nreplace other => ./third\n")
		}, holds: "other-work"},
		"a go.mod between the module and a package": {
			prepare: func(r *stampRig) {
				r.write("work/lib/lib.go", "package lib\n\nconst Text = \"lib-work\"\n")
				r.write("work/go.mod", "module m/deep\n\ngo 1.26\n")
				r.edit("mod/go.mod", "replace other", "require m/deep v0.0.0\n\nreplace m/deep => ../work\n\nreplace other")
				require.NoError(r.t, os.RemoveAll(r.path("work/lib"))) // so that m has the package
				r.write("work/none.go", "package deep\n")
			},
			change: func(r *stampRig) {
				r.write("mod/deep/go.mod", "module elsewhere\n\ngo 1.26\n")
				r.write("work/lib/lib.go", "package lib\n\nconst Text = \"lib-work\"\n")
			}, holds: "lib-work"},
		"GOFLAGS": {change: func(r *stampRig) {
			r.write("lib2.go", "package lib\n\nconst Text = \"lib-over\"\n")
			r.write("overlay.json", `{"Replace": {"`+r.path("mod/deep/lib/lib.go")+`": "`+r.path("lib2.go")+`"}}`)
			r.t.Setenv("GOFLAGS", "-overlay="+r.path("overlay.json"))
		}, holds: "lib-over"},
		"a file of an overlay": {
			prepare: func(r *stampRig) {
				r.write("lib2.go", "package lib\n\nconst Text = \"lib-over\"\n")
				r.write("overlay.json", `{"Replace": {"../deep/lib/lib.go": "../../lib2.go"}}`)
				r.t.Setenv("GOFLAGS", "-overlay=../../overlay.json")
			},
			change: func(r *stampRig) { r.edit("lib2.go", "lib-over", "lib-last") }, holds: "lib-last"},
		"a setting of go env -w": {
			prepare: func(r *stampRig) {
				r.write("lib2.go", "package lib\n\nconst Text = \"lib-over\"\n")
				r.write("overlay.json", `{"Replace": {"`+r.path("mod/deep/lib/lib.go")+`": "`+r.path("lib2.go")+`"}}`)
				require.NoError(r.t, os.Unsetenv("GOFLAGS")) // it would count more than the setting
			},
			change: func(r *stampRig) {
				out, err := exec.Command("go", "env", "-w", "GOFLAGS=-overlay="+r.path("overlay.json")).CombinedOutput()
				require.NoError(r.t, err, "%s", out)
			}, holds: "lib-over"},
		"tags": {
			prepare: func(r *stampRig) {
				r.write("mod/main/tagged.go", "//go:build special\n\npackage main\n\nfunc init() { added = \"tagged-file\" }\n")
			},
			change: func(r *stampRig) { r.o.BuildFlags = []string{"-tags=special"} }, holds: "tagged-file"},
		"a file whose tag excludes it": {
			prepare: func(r *stampRig) {
				r.write("mod/main/tagged.go", "//go:build special\n\npackage main\n\nfunc init() { added = \"tagged-file\" }\n")
			},
			change: func(r *stampRig) { r.edit("mod/main/tagged.go", "special", "!others") }, holds: "tagged-file"},
		"a vendored file": {
			prepare: func(r *stampRig) {
				// A module from the module cache. Go.sum has its checksum.
				sums, err := os.ReadFile("../go.sum")
				require.NoError(r.t, err)
				r.write("mod/go.sum", string(sums))
				r.edit("mod/go.mod", "replace", "require golang.org/x/sync v0.24.0\n\nreplace")
				r.write("mod/main/group.go", "package main\n\nimport _ \"golang.org/x/sync/errgroup\"\n")
				cmd := exec.Command("go", "mod", "vendor")
				cmd.Dir = r.path("mod")
				out, err := cmd.CombinedOutput()
				require.NoError(r.t, err, "%s", out)
			},
			change: func(r *stampRig) {
				r.edit("mod/vendor/golang.org/x/sync/errgroup/errgroup.go", "type token struct{}", "type token struct{}\n\nfunc init() { println(\"vendored-2\") }")
			}, holds: "vendored-2"},
		"a file behind a symbolic link": {
			prepare: func(r *stampRig) {
				r.write("b.go", "package lib\n\nconst Text = \"lib-link\"\n")
				r.write("a.go", "package lib\n\nconst Text = \"lib-file\"\n")
				require.NoError(r.t, os.Remove(r.path("mod/deep/lib/lib.go")))
				require.NoError(r.t, os.Symlink("../../../a.go", r.path("mod/deep/lib/lib.go")))
			},
			change: func(r *stampRig) {
				require.NoError(r.t, os.Remove(r.path("mod/deep/lib/lib.go")))
				require.NoError(r.t, os.Symlink("../../../b.go", r.path("mod/deep/lib/lib.go")))
			}, holds: "lib-link"},
		"the program's file in the cache is missing": {change: func(r *stampRig) { require.NoError(r.t, os.Remove(r.cached())) }, holds: same},
		"the program's file in the cache is damaged": {change: func(r *stampRig) {
			data, err := os.ReadFile(r.cached())
			require.NoError(r.t, err)
			data[len(data)/2] ^= 1
			require.NoError(r.t, os.WriteFile(r.cached(), data, 0o777))
		}, holds: same},
		"half a stamp": {change: func(r *stampRig) {
			files, err := filepath.Glob(r.path("cache/stamps/*"))
			require.NoError(r.t, err)
			require.Len(r.t, files, 1)
			require.NoError(r.t, os.Truncate(files[0], 100))
		}, holds: same},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStampRig(t)
			if c.prepare != nil {
				c.prepare(r)
			}
			r.settle()
			before, _ := r.program()
			r.requireStamped()
			if c.holds != same {
				require.NotContains(t, before, c.holds)
			}
			c.change(r)
			after, built := r.program()
			require.True(t, built)
			require.Contains(t, after, c.holds)
			require.NotContains(t, after, "gone")
			r.requireStamped()
			after, _ = r.program()
			require.Contains(t, after, c.holds)
		})
	}
}

// cached returns the path of the program in the cache.
func (r *stampRig) cached() string {
	r.t.Helper()
	files, err := filepath.Glob(r.path("cache/programs/*"))
	require.NoError(r.t, err)
	require.Len(r.t, files, 1)
	return files[0]
}

// A directory or file that was missing decides about a kernel too.
func TestAStampOfAKernelIsNotTrustedAfterAChange(t *testing.T) {
	const builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/net/virtio_net.ko\n"
	for name, c := range map[string]struct {
		has     string // a file beside the kernel
		adds    string // the file that is added
		modules string // the directory of the modules after the change
	}{
		"modules of the kernel's release beside others": {
			has:  "lib/modules/1/modules.builtin",
			adds: "lib/modules/2/modules.builtin", modules: "lib/modules/2"},
		"modules where there were none": {
			has:  "usr/lib/firmware",
			adds: "usr/lib/modules/2/modules.builtin", modules: "usr/lib/modules/2"},
		"the modules of a build": {
			has:  "modules.builtin",
			adds: "modules.order", modules: "."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStampRig(t)
			r.o.Kernel = r.path("kernel")
			r.write("kernel/vmlinuz", string(bzImage("2")))
			r.write("kernel/"+c.has, builtin)
			kernel := func() (modules string, fetched bool) {
				tgt, err := target.Lookup("x86_64")
				require.NoError(t, err)
				image, err := stamped(t.Context(), tgt, r.o, "kernel", nil, func(o Options) (Image, error) {
					fetched = true
					k, err := FetchKernel(t.Context(), tgt.Name, o)
					image := k.image()
					image.Initramfs, image.InitramfsSHA256 = image.Kernel, image.KernelSHA256
					return image, err
				})
				require.NoError(t, err)
				return image.Modules, fetched
			}
			r.settle()
			before, _ := kernel()
			r.settle()
			kernel()
			_, fetched := kernel()
			require.False(t, fetched, "nothing has changed")
			r.write("kernel/"+c.adds, builtin)
			after, fetched := kernel()
			require.True(t, fetched)
			require.NotEqual(t, before, after)
			require.Equal(t, r.path(filepath.Join("kernel", c.modules)), after)
		})
	}
}

// A file that has the name of a kernel is another kernel.
func TestTheKernelNamesAStamp(t *testing.T) {
	release, err := hostRelease()
	require.NoError(t, err)
	seen := map[string]string{}
	arm64, err := target.Lookup("arm64")
	require.NoError(t, err)
	c, err := imagecache.Open(t.TempDir())
	require.NoError(t, err)
	for _, name := range []string{"debian", "debian:linux-image-rt-arm64", "./debian:linux-image-rt-arm64", "gokrazy", "./gokrazy", "host", "./host", release, "host " + release} {
		key, err := kernelKey(arm64, c, name)
		require.NoError(t, err)
		require.Empty(t, seen[key], "%q has the key of %q", name, seen[key])
		seen[key] = "kernel " + name
	}
	before, err := kernelKey(arm64, c, "debian")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	after, err := kernelKey(arm64, c, "debian")
	require.NoError(t, err)
	require.Equal(t, before, after, "a name is the same kernel in every directory")
	noApt(t)
	gokrazy, err := kernelKey(arm64, c, "")
	require.NoError(t, err)
	require.Equal(t, seen[gokrazy], "kernel gokrazy", "without apt, no name stands for gokrazy's kernel")
}

// Another Go is another GOROOT, or another VERSION in the same one.
func TestAStampIsNotTrustedWithAnotherGo(t *testing.T) {
	r := newStampRig(t)
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	real := strings.TrimSpace(string(out))
	goroot := r.path("goroot") // the real one, but for VERSION and bin
	require.NoError(t, os.Mkdir(goroot, 0o777))
	names, err := os.ReadDir(real)
	require.NoError(t, err)
	for _, e := range names {
		if n := e.Name(); n != "VERSION" && n != "bin" {
			require.NoError(t, os.Symlink(filepath.Join(real, n), filepath.Join(goroot, n)))
		}
	}
	version, err := os.ReadFile(filepath.Join(real, "VERSION"))
	require.NoError(t, err)
	r.write("goroot/VERSION", string(version))
	require.NoError(t, os.Mkdir(r.path("goroot/bin"), 0o777))
	tool, err := os.ReadFile(filepath.Join(real, "bin/go"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.path("goroot/bin/go"), tool, 0o777))
	r.settle()
	r.program()
	r.requireStamped()

	t.Setenv("PATH", r.path("goroot/bin")+":"+os.Getenv("PATH"))
	_, built := r.program()
	require.True(t, built, "another go command")
	r.requireStamped()
	r.edit("goroot/VERSION", "go1.", "go1.")
	_, built = r.program()
	require.True(t, built, "another VERSION")
	r.requireStamped()

	// A script may choose another Go by anything.
	r.write("bin/go", "#!/bin/sh\nexec "+filepath.Join(real, "bin/go")+" \"$@\"\n")
	require.NoError(t, os.Chmod(r.path("bin/go"), 0o777))
	t.Setenv("PATH", r.path("bin")+":"+os.Getenv("PATH"))
	for range 2 {
		r.settle()
		_, built = r.program()
		require.True(t, built, "a script named go")
	}
}

// A file that changes while the compiler runs, or shortly before, leaves no stamp.
func TestAFileThatChangesDuringABuildLeavesNoStamp(t *testing.T) {
	r := newStampRig(t)
	_, built := r.program()
	require.True(t, built)
	r.settle()
	_, built = r.program()
	require.True(t, built, "the files were new when the first build began")
	r.requireStamped()

	for _, c := range []struct {
		name   string
		change func()
	}{
		{"edited", func() { r.edit("mod/main/main.go", "main-one", "main-two") }},
		{"added", func() { r.write("mod/main/new.go", "package main\n\nfunc init() { added = \"added-file\" }\n") }},
		{"removed", func() { require.NoError(t, os.Remove(r.path("mod/main/new.go"))) }},
		{"go.work added", func() { r.write("go.work", "go 1.26.0\n\nuse ./mod\n") }},
		{"go.work removed", func() { require.NoError(t, os.Remove(r.path("go.work"))) }},
	} {
		require.NoError(t, os.RemoveAll(r.path("cache/stamps")))
		require.NoError(t, os.Mkdir(r.path("cache/stamps"), 0o777))
		r.settle()
		_, built = r.programWhile(c.change)
		require.True(t, built, c.name)
		r.settle()
		_, built = r.program()
		require.True(t, built, c.name)
	}
	text, _ := r.program()
	require.Contains(t, text, "main-two")
}

// Flags that could make the compiler read files that no stamp knows leave no stamp.
func TestFlagsThatNoStampKnows(t *testing.T) {
	for _, flags := range [][]string{{"-toolexec=env"}, {"-C=/"}, {"-buildvcs=true"}, {"-overlay", "file"}, {"-tags", "a"}} {
		require.Error(t, stampable(flags), "%q", flags)
	}
	require.NoError(t, stampable([]string{"-tags=a", "--cover", "-ldflags=-X main.a=b", "-race"}))
}

// The go command reads no variable whose change would keep the stamp's name.
func TestTheEnvironmentNamesAStamp(t *testing.T) {
	out, err := exec.Command("go", "env", "-json").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			require.True(t, readByGo(strings.Trim(name, `"`)), name)
		}
	}
	require.False(t, readByGo("GUESTHOUSE_TARGETS"))
}
