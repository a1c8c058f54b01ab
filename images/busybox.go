package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
)

// commands are u-root's commands in every guest: a shell, a DHCP client, and commands that scripts and
// tests expect and with which a person finds a fault. Each of them is a tool of busybox.mod. They are a
// tenth of the program, and add nothing measurable to its start: makebb makes the package-level
// initialization of a command wait until the command is called.
var commands = []string{
	"basename", "blkid", "cat", "chmod", "chroot", "comm", "cp", "date", "dd", "df", "dhclient", "dirname",
	"dmesg", "du", "echo", "false", "find", "free", "gosh", "grep", "head", "hexdump", "hostname", "id", "insmod",
	"ip", "kill", "ln", "losetup", "ls", "lsmod", "md5sum", "mkdir", "mkfifo", "mknod", "mktemp", "mount", "mv",
	"netstat", "pidof", "ping", "poweroff", "printenv", "ps", "pwd", "readlink", "realpath", "rm", "rmmod", "seq",
	"shasum", "shutdown", "sleep", "sort", "strings", "stty", "sync", "tail", "tar", "tee", "time", "timeout",
	"touch", "tr", "true", "truncate", "tty", "umount", "uname", "uniq", "unshare", "uptime", "wc", "which",
	"xargs", "yes",
}

// plainShell is the build tag that leaves gosh's line editor out. The editor sends queries to the
// terminal, which a test does not answer, and control sequences, which a test cannot match. Without
// the editor, the guest's tty edits the line.
const plainShell = "goshsmall"

const (
	modulePath  = "guesthouse.example"
	commandPath = "github.com/u-root/u-root/cmds/core/"
	initPath    = modulePath + "/guest/cmd/init"
	modprobe    = modulePath + "/guest/cmd/modprobe"
	makebb      = "github.com/u-root/gobusybox/src/cmd/makebb"
)

// busyboxMod is the go.mod for compiling init and u-root's commands. It replaces the go.mod of module
// guesthouse.example and pins u-root; busybox.sum beside it has the checksums. Thanks to it, no user's
// go.mod lists modules that only the busybox needs.
const busyboxMod = "images/busybox.mod"

const (
	moduleHint   = "the guest's module must require " + modulePath + ": the init that starts the guest is compiled from it"
	downloadHint = "the go command downloads u-root's sources before it first compiles them: check GOPROXY and the network"
)

// busybox returns one program that contains the guest's init and u-root's commands. The name by which
// the program is called selects the command.
//
// u-root's builder, makebb, generates the sources of that program. It runs as a process of its own: as
// a library it would keep the memory of loading the packages, and it could neither be killed nor get
// an environment of its own. "go build" compiles the generated sources and shares compiled packages
// with the build of the guest.
func busybox(ctx context.Context, c *imagecache.Cache, t target.Target, o Options) ([]byte, error) {
	const step = "build u-root commands"
	g, err := findGo(ctx, o)
	if err != nil {
		return nil, err
	}
	if g, err = g.forBusybox(ctx); err != nil {
		return nil, fail(step, t.Name, err, moduleHint)
	}
	packages := []string{initPath, modprobe}
	for _, name := range commands {
		packages = append(packages, commandPath+name)
	}
	// The key includes makebb, because another makebb may generate other sources.
	sources, err := g.sources(ctx, t, append([]string{"-tags", plainShell, makebb}, packages...), o.inputs)
	if err != nil {
		return nil, fail(step, t.Name, err, downloadHint)
	}
	key := hashBytes([]byte(strings.Join(append([]string{"busybox 1", g.version, t.GOARCH, t.GOARM,
		strings.Join(commands, " "), strings.Join(buildFlags, " "), plainShell}, sources...), "\n")))
	dir := c.Path(imagecache.Commands, key)
	data, err := readBusybox(dir)
	if err == nil {
		return data, nil
	}
	b, err := c.Build(ctx, "busybox-"+t.Name)
	if err != nil {
		return nil, fail(step, t.Name, err, "")
	}
	defer b.Close()
	// Another process may have built it while this one waited.
	data, err = readBusybox(dir)
	if err == nil {
		return data, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		o.notice("%s: the cached u-root commands are damaged (%v), building them again", t.Name, err)
	} else {
		o.notice("%s: building u-root's commands, once for each version of them and of Go", t.Name)
	}
	defer o.progress("u-root commands "+t.Name, elapsed)()
	err = g.busybox(ctx, b, t, packages)
	if err == nil {
		err = b.Publish("out", dir)
	}
	if err == nil {
		data, err = readBusybox(dir)
	}
	if err != nil {
		return nil, fail(step, t.Name, err, "")
	}
	c.Prune(imagecache.Commands)
	return data, nil
}

func readBusybox(dir string) ([]byte, error) {
	m, err := imagecache.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	f, err := m.Open(dir, "bb")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	store.Use(dir)
	return io.ReadAll(f)
}

// forBusybox returns g in the directory of module guesthouse.example, in the version that the
// guest's module requires, with busyboxMod as its go.mod.
func (g *goTool) forBusybox(ctx context.Context) (*goTool, error) {
	var out bytes.Buffer
	// A vendor directory holds only the packages that the guest imports. "go list" of a package downloads
	// its module, and with -find no other one.
	args := []string{"list", "-find", "-mod=readonly", "-f", "{{.Module.Dir}}", initPath}
	if _, err := run(ctx, command{dir: g.dir, env: g.env, path: g.path, args: args, stdout: &out}); err != nil {
		return nil, err
	}
	b := *g
	b.dir = strings.TrimSpace(out.String())
	b.env = append(slices.Clip(g.env), "GOWORK=off", "GOFLAGS=-buildvcs=false -mod=readonly -modfile="+busyboxMod)
	// The go command finds that module by the guest's.
	b.inputs = g.inputs
	b.inputs.pinned = filepath.Join(b.dir, busyboxMod)
	return &b, nil
}

// busybox writes the program and its manifest into the directory "out" of b.
func (g *goTool) busybox(ctx context.Context, b *store.Build, t target.Target, packages []string) error {
	tool, gen, out := b.Path("makebb"), b.Path("gen"), b.Path("out")
	for _, dir := range []string{gen, out} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
	}
	g = g.in(b.Path(""))
	// makebb runs on this host, not on the target.
	if _, err := run(ctx, command{dir: g.dir, env: append(g.env, "GOOS=", "GOARCH="), path: g.path,
		args: append(append([]string{"build"}, likeThisProgram()...), "-o", tool, makebb)}); err != nil {
		return err
	}
	if _, err := run(ctx, command{dir: g.dir, env: g.environ(t), path: tool,
		args: append([]string{"-g", "-gen-dir", gen, "-go-build-tags", plainShell}, packages...)}); err != nil {
		return err
	}
	// makebb has generated a GOPATH tree.
	args := append(append([]string{"build"}, buildFlags...), "-tags", plainShell, "-o", out+"/bb", ".")
	if _, err := run(ctx, command{dir: gen + "/src/bb.u-root.com/bb", path: g.path, args: args,
		env: append(g.environ(t), "GO111MODULE=off", "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOPATH="+gen)}); err != nil {
		return err
	}
	sum, err := imagecache.HashFile(out + "/bb")
	if err != nil {
		return err
	}
	return imagecache.Manifest{Files: map[string]string{"bb": sum}}.Write(out)
}

// likeThisProgram returns the build flag -trimpath if this program was built with it. A program for this
// host that is built in the same way finds the standard library compiled already.
func likeThisProgram() []string {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-trimpath", Value: "true"}) {
		return []string{"-trimpath"}
	}
	return nil
}
