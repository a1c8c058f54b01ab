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

	"github.com/u-root/mkuimage/cpio"
	"golang.org/x/sync/errgroup"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// ModulesLoad is the file of the initramfs that names the kernel modules which
// the guest has to load, in this order: one name a line; blank lines and those
// that begin with "#" count for nothing. A name may be of a module that is
// built into the kernel. What they depend on is in the modules.dep of
// /lib/modules/RELEASE, as u-root's pkg/kmodule reads it, and which devices they drive
// in modules.alias: init loads others there for the devices that it finds.
const ModulesLoad = "/etc/modules-load.d/guesthouse.conf"

// programs are what the initramfs runs.
type programs struct {
	busybox []byte
	guest   []byte
	machine elf.Machine // what they are compiled for
}

func buildPrograms(ctx context.Context, t target.Target, guestPkg string, o Options) (programs, error) {
	c, err := openCache(o)
	if err != nil {
		return programs{}, err
	}
	var p programs
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		p.busybox, err = busybox(ctx, c, t, o)
		return err
	})
	g.Go(func() (err error) {
		p.guest, p.machine, err = buildGuest(ctx, c, t, guestPkg, o)
		return err
	})
	return p, g.Wait()
}

// buildGuest compiles the guest as a program of its own. In the busybox its
// sources would be rewritten: package-level variables and init functions would
// run when its name is looked up, in another order than the language promises,
// and its panics would name lines that nobody wrote.
func buildGuest(ctx context.Context, c cache, t target.Target, pkg string, o Options) ([]byte, elf.Machine, error) {
	const step = "build guest"
	g, err := findGo(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	if testcache.Active() {
		// Before the compiler reads them. If it cannot be told, the build says why.
		packages, err := g.list(ctx, t, slices.Concat(o.BuildFlags, []string{"--", pkg}))
		if err == nil {
			g.inputs.note(packages, o.BuildFlags...)
		} else {
			testcache.Never()
		}
	}
	// Two builds of one program would only do the work twice.
	thing := strings.Join(append([]string{g.dir, pkg}, o.BuildFlags...), "\x00")
	w, err := c.anyWorkshop(ctx, "guest-"+t.Name+"-"+hashBytes([]byte(thing))[:16])
	if err != nil {
		return nil, 0, fail(step, pkg, err, "")
	}
	defer w.close()
	defer o.progress("guest "+pkg+" "+t.Name, elapsed)()
	g = g.in(w.tmp)
	args := slices.Concat([]string{"build"}, buildFlags, o.BuildFlags, []string{"-o", w.path("guest"), "--", pkg})
	if _, err := run(ctx, command{dir: g.dir, env: g.environ(t), path: g.path, args: args}); err != nil {
		return nil, 0, fail(step, pkg, err, "")
	}
	data, err := os.ReadFile(w.path("guest"))
	if err != nil {
		return nil, 0, fail(step, pkg, err, "")
	}
	// Of a library "go build" makes an archive without a word.
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, 0, fail(step, pkg, errors.New("not a main package"), "name the package with the guest's func main")
	}
	return data, f.Machine, nil
}

// writeInitramfs puts the archive together and into the cache.
func writeInitramfs(ctx context.Context, t target.Target, k Kernel, p programs, o Options) (file, sum string, err error) {
	const step = "write initramfs"
	c, err := openCache(o)
	if err != nil {
		return "", "", err
	}
	records, err := k.moduleRecords(t, p.machine)
	if err != nil {
		return "", "", fail("add kernel modules", t.Name, err, "")
	}
	records = append(records, p.records()...)
	if records, err = addFiles(records, o.Files); err != nil {
		return "", "", fail("add files", t.Name, err, "")
	}
	data, err := archive(records)
	if err != nil {
		return "", "", fail(step, t.Name, err, "")
	}
	sum = hashBytes(data)
	file = c.path("initramfs", sum+".cpio")
	if there, err := hashFile(file); err == nil && there == sum {
		used(file)
		return file, sum, nil
	}
	w, err := c.workshop(ctx, "initramfs-"+t.Name)
	if err != nil {
		return "", "", fail(step, t.Name, err, "")
	}
	defer w.close()
	err = os.WriteFile(w.path("cpio"), data, 0o666)
	if err == nil {
		err = w.publish("cpio", file)
	}
	if err != nil {
		return "", "", fail(step, file, err, "")
	}
	w.prune(c, "initramfs")
	return file, sum, nil
}

// moduleRecords are /lib/modules and the list of what is to be loaded.
func (k Kernel) moduleRecords(t target.Target, machine elf.Machine) ([]cpio.Record, error) {
	load := "# The kernel modules that drive the devices of the target " + t.Name + ".\n"
	if k.Modules == "" {
		load += "# This kernel came without modules: its drivers are taken to be built in.\n"
		return []cpio.Record{cpio.StaticFile(ModulesLoad[1:], load, 0o644)}, nil
	}
	modules, err := readTree(k.Modules, k.files)
	if err != nil {
		return nil, err
	}
	wanted := slices.Concat(t.Modules, modules.among(t.OptionalModules))
	c, err := modules.closure(slices.Concat(wanted, modules.among(t.DeviceModules)))
	if err != nil {
		return nil, err
	}
	dir := path.Join("lib/modules", k.Release)
	var records []cpio.Record
	for _, m := range c.modules {
		if m.machine != machine {
			return nil, fmt.Errorf("module %s is for %v, and the target is %v", m.name, m.machine, machine)
		}
		if m.release != k.Release {
			return nil, fmt.Errorf("module %s is for the kernel %s, and this one is %s", m.name, m.release, k.Release)
		}
		records = append(records, cpio.StaticRecord(m.data, cpio.Info{Name: path.Join(dir, m.path), Mode: cpio.S_IFREG | 0o644}))
	}
	var builtin string
	for _, line := range c.builtin {
		builtin += line + "\n"
	}
	load += strings.Join(wanted, "\n") + "\n"
	return append(records,
		cpio.StaticFile(path.Join(dir, "modules.dep"), c.modulesDep(), 0o644),
		cpio.StaticFile(path.Join(dir, "modules.alias"), c.modulesAlias(), 0o644),
		cpio.StaticFile(path.Join(dir, "modules.builtin"), builtin, 0o644),
		cpio.StaticFile(ModulesLoad[1:], load, 0o644)), nil
}

// records are the programs and the few files that they look for.
func (p programs) records() []cpio.Record {
	program := func(name string, data []byte) cpio.Record {
		return cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o755})
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("sys", 0o755),
		cpio.Directory("tmp", 0o777),
		cpio.Directory("var/log", 0o777),
		// The kernel opens the console for init before anything is mounted.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("etc/passwd", "root:x:0:0:root:/:/bin/sh\n", 0o644),
		cpio.StaticFile("etc/group", "root:x:0:\n", 0o644),
		cpio.StaticFile("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644),
		cpio.Symlink("init", "bbin/init"),
		cpio.Symlink("bin/sh", "../bbin/gosh"),
		program("bbin/bb", p.busybox),
		program("bin/uinit", p.guest),
	}
	for _, name := range append([]string{path.Base(initPath)}, commands...) {
		records = append(records, cpio.Symlink("bbin/"+name, "bb"))
	}
	return records
}

// addFiles adds the user's files, which must not replace what is there.
func addFiles(records []cpio.Record, files map[string]string) ([]cpio.Record, error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
			return nil, fmt.Errorf("%q is no absolute path in the guest", name)
		}
		if slices.ContainsFunc(records, func(r cpio.Record) bool { return r.Name == name[1:] }) {
			return nil, fmt.Errorf("%s: the guest has a file of this name already", name)
		}
		testcache.Depends(files[name])
		info, err := os.Stat(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		data, err := regular.ReadFile(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		mode := uint64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		records = append(records, cpio.StaticRecord(data, cpio.Info{Name: name[1:], Mode: cpio.S_IFREG | mode}))
	}
	return records, nil
}

// archive returns an uncompressed archive, the kind that boots fastest. It
// depends on the records alone: sorted, without times, owners and inodes, each
// after its directory, which the kernel needs.
func archive(records []cpio.Record) ([]byte, error) {
	all := map[string]cpio.Record{}
	for _, r := range records {
		all[r.Name] = cpio.MakeReproducible(r)
	}
	for _, r := range records {
		for dir := path.Dir(r.Name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = cpio.Directory(dir, 0o755)
			}
		}
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := w.WriteRecord(all[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
