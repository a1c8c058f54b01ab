package images

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
)

// programs are the programs of an initramfs.
type programs struct {
	busybox []byte
	guest   []byte      // nil in a platform
	machine elf.Machine // the processor that they are compiled for
}

// buildPrograms builds the programs of an initramfs. It builds no guest if guestPkg is empty.
func buildPrograms(ctx context.Context, t target.Target, guestPkg string, o Options) (programs, error) {
	c, err := openCache(o)
	if err != nil {
		return programs{}, err
	}
	var p programs
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if p.busybox, err = busybox(ctx, c, t, o); err != nil {
			return err
		}
		f, err := elf.NewFile(bytes.NewReader(p.busybox))
		if err != nil {
			return fail("build u-root commands", t.Name, err, "")
		}
		p.machine = f.Machine
		return nil
	})
	if guestPkg != "" {
		g.Go(func() (err error) {
			p.guest, err = buildGuest(ctx, c, t, guestPkg, o)
			return err
		})
	}
	return p, g.Wait()
}

// buildGuest compiles the guest as a program of its own. It does not compile the guest into the
// busybox, because makebb rewrites the sources of its programs: it runs their package-level
// initialization late, in another order than the language promises, and a panic would name lines
// that are in no source file.
func buildGuest(ctx context.Context, c *imagecache.Cache, t target.Target, pkg string, o Options) ([]byte, error) {
	const step = "build guest"
	g, err := findGo(ctx, o)
	if err != nil {
		return nil, err
	}
	defer g.noteGuest(ctx, t, pkg, o)()
	// A second build of the same program waits, and then finds its packages compiled.
	thing := strings.Join(append([]string{g.dir, pkg}, o.BuildFlags...), "\x00")
	b, err := c.BuildOutside(ctx, "guest-"+t.Name+"-"+hashBytes([]byte(thing))[:16])
	if err != nil {
		return nil, fail(step, pkg, err, "")
	}
	defer b.Close()
	defer o.progress("guest "+pkg+" "+t.Name, elapsed)()
	g = g.in(b.Path(""))
	args := slices.Concat([]string{"build"}, buildFlags, o.BuildFlags, []string{"-o", b.Path("guest"), "--", pkg})
	if _, err := run(ctx, command{dir: g.dir, env: g.environ(t), path: g.path, args: args}); err != nil {
		return nil, fail(step, pkg, err, "")
	}
	data, err := os.ReadFile(b.Path("guest"))
	if err != nil {
		return nil, fail(step, pkg, err, "")
	}
	// For a library "go build" succeeds and writes an archive.
	if _, err := elf.NewFile(bytes.NewReader(data)); err != nil {
		return nil, fail(step, pkg, errors.New("not a main package"), "name the package with the guest's func main")
	}
	return data, nil
}

// noteGuest notes what a guest program depends on, while the compiler runs. The function that it
// returns waits for the end.
func (g *goTool) noteGuest(ctx context.Context, t target.Target, pkg string, o Options) (wait func()) {
	if !o.inputs.wanted() {
		return func() {}
	}
	if err := stampable(o.BuildFlags); err != nil {
		o.inputs.noStamp(err)
	}
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		packages, err := g.list(ctx, t, slices.Concat(o.BuildFlags, []string{"--", pkg}))
		if err != nil {
			o.inputs.never(err) // The build fails too, and says why.
			return
		}
		g.inputs.note(o.inputs, packages, o.BuildFlags...)
	}()
	return func() { <-noted }
}

// writeInitramfs writes the archive into the cache, unless it is there.
func writeInitramfs(ctx context.Context, t target.Target, k Kernel, p programs, o Options) (file, sum string, err error) {
	const step = "write initramfs"
	c, err := openCache(o)
	if err != nil {
		return "", "", err
	}
	records, err := k.moduleRecords(t, p.machine, o)
	if err != nil {
		return "", "", fail("add kernel modules", t.Name, err, "")
	}
	records = append(records, p.records()...)
	if records, err = addFiles(records, o.Files, o.inputs); err != nil {
		return "", "", fail("add files", t.Name, err, "")
	}
	data, err := archive(records)
	if err != nil {
		return "", "", fail(step, t.Name, err, "")
	}
	if file, sum, err = c.Put(ctx, imagecache.Initramfs, data); err != nil {
		return "", "", fail(step, t.Name, err, "")
	}
	return file, sum, nil
}

// moduleRecords returns the records of /lib/modules and of the list of the modules that init loads.
func (k Kernel) moduleRecords(t target.Target, machine elf.Machine, o Options) ([]record, error) {
	load := "# The kernel modules that drive the devices of the target " + t.Name + ".\n"
	if k.Modules == "" {
		load += "# This kernel has no modules: its drivers must be built in.\n"
		return []record{textFile(initramfs.ModulesFile[1:], load)}, nil
	}
	modules, err := readTree(k.Modules, k.files, o.inputs)
	if err != nil {
		return nil, err
	}
	wanted := slices.Concat(t.Modules, modules.among(t.OptionalModules))
	c, err := modules.closure(slices.Concat(wanted, modules.among(t.DeviceModules), modules.among(t.ShareModules)))
	if err != nil {
		return nil, err
	}
	dir := path.Join("lib/modules", k.Release)
	var records []record
	for _, m := range c.modules {
		if m.machine != machine {
			return nil, fmt.Errorf("module %s is for %v, but the target is %v", m.name, m.machine, machine)
		}
		if m.release != k.Release {
			return nil, fmt.Errorf("module %s is for the kernel %s, but this kernel is %s", m.name, m.release, k.Release)
		}
		records = append(records, regularFile(path.Join(dir, m.path), m.data, 0o644))
	}
	var builtin string
	for _, line := range c.builtin {
		builtin += line + "\n"
	}
	load += strings.Join(wanted, "\n") + "\n"
	nodes, err := modules.deviceNodes()
	if err != nil {
		return nil, err
	}
	return append(records,
		textFile(path.Join(dir, "modules.dep"), c.modulesDep()),
		textFile(path.Join(dir, "modules.alias"), c.modulesAlias()),
		textFile(path.Join(dir, "modules.builtin"), builtin),
		textFile(path.Join(dir, "modules.devname"), nodes),
		textFile(initramfs.ModulesFile[1:], load)), nil
}

// records returns the records of the programs and of the files that they look for.
func (p programs) records() []record {
	records := []record{
		directory("dev", 0o755),
		directory("proc", 0o555),
		directory("sys", 0o555),
		directory("run", 0o755),
		directory("tmp", 0o1777),
		directory("var/tmp", 0o1777),
		directory("var/log", 0o755),
		directory("root", 0o700),
		// The kernel opens the console for init before any file system is mounted.
		characterDevice("dev/console", 0o600, 5, 1),
		characterDevice("dev/null", 0o666, 1, 3),
		textFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		textFile("etc/group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nnogroup:x:65534:\n"),
		textFile("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
		symlink("init", "bbin/init"),
		symlink("bin/sh", "../bbin/gosh"),
		symlink("bbin/modprobe", "bb"),
		symlink("sbin/modprobe", "../bbin/bb"), // the kernel calls it by this name
		regularFile("bbin/bb", p.busybox, 0o755),
	}
	if p.guest != nil {
		records = append(records, regularFile(initramfs.Program[1:], p.guest, 0o755))
	}
	for _, name := range append([]string{path.Base(initPath)}, commands...) {
		records = append(records, symlink("bbin/"+name, "bb"))
	}
	return records
}

// addFiles adds the user's files. A file that would replace another one is an error.
func addFiles(records []record, files map[string]string, in *inputs) ([]record, error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
			return nil, fmt.Errorf("%q is not a clean absolute path in the guest, such as /etc/motd", name)
		}
		if slices.ContainsFunc(records, func(r record) bool { return r.name == name[1:] }) {
			return nil, fmt.Errorf("%s: the guest already has a file of this name", name)
		}
		in.depends(files[name])
		info, err := os.Stat(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		data, err := regular.ReadFile(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		mode := uint32(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		records = append(records, regularFile(name[1:], data, mode))
	}
	return records, nil
}
