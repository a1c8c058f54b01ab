package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/executable"
	"guesthouse.example/harness/internal/gotest"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// A program is what guesthouse exec runs.
type program struct {
	args   []string // with the program's name or path in the machine
	file   string   // the absolute path of the program on this host; empty for a command of the machine
	target target.Target
	dir    string // where it starts in the machine
	env    []string
	shares []harness.Share

	test *gotest.Call // nil if the program is not a test binary
	log  *gotest.Log  // nil if the go command caches no result
}

// guestPath is the value of PATH in a machine.
const guestPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin"

// newProgram finds a program and decides what it sees of this host.
func newProgram(name string, args []string, dir string, shape machineFlags) (*program, error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	p := &program{args: append([]string{name}, args...)}
	if p.target, err = ofArchitecture(runtime.GOARCH); err != nil {
		p.target = target.All()[0]
	}
	if strings.Contains(name, "/") {
		p.file = absoluteIn(here, name)
		if p.target, err = executable.Target(p.file); err != nil {
			return nil, refused(err)
		}
		p.args[0] = p.file
	}
	if call, ok := gotest.Parse(here, p.file, args); ok && p.file != "" {
		p.test = &call
	}
	if err := p.share(here, shape); err != nil {
		return nil, err
	}
	p.dir = dir
	if dir == "" {
		p.dir = "/"
		if p.sees(here) {
			p.dir = here
		}
	}
	p.env = append(gotest.Environ(os.Environ(), p.dir), guestPath, "HOME=/root", "USER=root")
	for _, v := range shape.env {
		if name, _, hasValue := strings.Cut(v, "="); !hasValue {
			value, set := os.LookupEnv(name)
			if !set {
				continue
			}
			v += "=" + value
		}
		p.env = append(p.env, v)
	}
	if p.test != nil && dir == "" {
		if p.log = gotest.NewLog(*p.test); p.log != nil {
			p.args = slices.Insert(p.args, 1, p.log.Arg)
		}
	}
	return p, nil
}

// refused gives the error of a program that cannot be run the status that a shell gives it.
func refused(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return statusError{err, 127}
	}
	return statusError{err, 126}
}

// share decides which directories of this host the program sees.
func (p *program) share(here string, shape machineFlags) error {
	for _, text := range shape.shares {
		s, err := parseShare(here, text)
		if err != nil {
			return err
		}
		p.shares = append(p.shares, s)
	}
	add := func(dir string, mode harness.ShareMode) {
		if !slices.ContainsFunc(p.shares, func(s harness.Share) bool { return s.Guest == dir }) {
			p.shares = append(p.shares, harness.Share{Host: dir, Guest: dir, Mode: mode})
		}
	}
	modules, err := gotest.Modules(here, os.Getenv("GOWORK"))
	if err != nil {
		return err
	}
	mode := harness.ShareOverlay
	if p.test != nil && p.test.Fuzzes() {
		mode = harness.ShareWrite // a failing input becomes a file of the package
	}
	for _, dir := range modules {
		add(dir, mode)
	}
	if p.test == nil {
		return nil
	}
	if dir, ok := p.test.Scratch(); ok {
		add(dir, harness.ShareWrite)
	}
	if dir := p.test.FuzzCache(); dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		add(dir, harness.ShareWrite)
	}
	return nil
}

// parseShare parses DIR[:PATH[:MODE]] and refuses what is no directory.
func parseShare(here, text string) (harness.Share, error) {
	s, err := harness.ParseShare(text)
	if err != nil {
		return s, err
	}
	s.Host = absoluteIn(here, s.Host)
	s.Guest = cmp.Or(s.Guest, s.Host)
	info, err := os.Stat(s.Host)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return s, fmt.Errorf("share %q: %w", text, err)
	}
	return s, nil
}

// sees reports whether the program sees a path of this host at the same path.
func (p *program) sees(path string) bool {
	return slices.ContainsFunc(p.shares, func(s harness.Share) bool {
		rel, err := filepath.Rel(s.Guest, path)
		return s.Host == s.Guest && err == nil && filepath.IsLocal(rel)
	})
}

// check refuses a program that a target cannot run.
func (p *program) check(name string) error {
	t, err := target.Lookup(name)
	if err != nil {
		return fmt.Errorf("%w (%w; see -h)", err, errUsage)
	}
	if p.file != "" {
		if _, err := executable.Check(p.file, t); err != nil {
			return refused(err)
		}
	}
	p.target = t
	return nil
}

// spec returns the machine for the program.
func (p *program) spec(image images.Image, shape machineFlags) harness.Spec {
	s := harness.Spec{
		Target: p.target.Name, Memory: shape.memory, CPUs: shape.cpus, Ready: harness.PlatformReady, Share: p.shares,
		From: new(harness.TemplateCache),
	}
	setImage(&s, image, images.Executable{})
	if image.Modules != "" && image.Release != "" {
		s.Share = append(s.Share, harness.Share{Host: image.Modules, Guest: "/lib/modules/" + image.Release})
	}
	if shape.net {
		s.Outbound = harness.OutboundInternet
	}
	return s
}

// dependsOn tells the go command's cache of results on which files a test depends besides those that it
// opens itself.
func (p *program) dependsOn(image images.Image) {
	if p.log == nil {
		return
	}
	self, err := os.Executable()
	if err != nil || !installed(self) || len(image.Inputs) == 0 {
		p.log = nil
		return
	}
	p.log.Depends(self, image.Kernel)
	p.log.Depends(image.Inputs...)                              // the initramfs has the hash of its content in its name
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) { // where another QEMU would be found
		file := filepath.Join(dir, p.target.QEMU)
		p.log.Depends(file)
		if found, _ := exec.LookPath(file); found != "" {
			break
		}
	}
}

// installed reports whether a program is a file that changes when another version of guesthouse replaces it. "go
// run" and "go tool" run one from a cache, where every version has a file of its own.
func installed(file string) bool {
	cache := os.Getenv("GOCACHE")
	return !strings.Contains(file, "/go-build") && (cache == "" || !strings.HasPrefix(file, cache+"/"))
}

// run runs the program in the machine.
func (p *program) run(ctx context.Context, signals *signals, m *harness.Machine, std stdio, terminal bool) error {
	cmd := m.Command(ctx, p.args[0], p.args[1:]...)
	cmd.Dir, cmd.Env = p.dir, p.env
	if !isNull(std.in) {
		cmd.Stdin = std.in
	}
	cmd.Stdout, cmd.Stderr = std.out, std.err
	if sameFile(std.out, std.err) {
		cmd.Stderr = std.out // one pipe keeps the order of the two
	}
	if terminal {
		restore, err := attachTerminal(cmd, std)
		if err != nil {
			return err
		}
		defer restore()
	}
	if err := p.start(cmd); err != nil {
		return err
	}
	signals.forward(cmd)
	err := cmd.Wait()
	if ended := (*harness.CommandError)(nil); errors.As(err, &ended) {
		return silentStatus(ended.Code())
	}
	return err
}

// start starts a command. A name that the machine does not know may be a program of this host.
func (p *program) start(cmd *harness.Cmd) error {
	err := cmd.Start()
	if errors.Is(err, fs.ErrNotExist) && p.file == "" {
		if file, lookErr := exec.LookPath(p.args[0]); lookErr == nil {
			if _, err := executable.Check(file, p.target); err != nil {
				return refused(err)
			}
			cmd.Args[0] = file
			err = cmd.Start()
		}
	}
	if refusal := (*harness.CommandError)(nil); errors.As(err, &refusal) {
		return statusError{fmt.Errorf("exec: %s was not started: %s", p.args[0], refusal.Why), refusal.Code()}
	}
	return err
}

// isNull reports whether a file is /dev/null, which needs no stream into the machine.
func isNull(f *os.File) bool {
	var is, null unix.Stat_t
	return unix.Fstat(int(f.Fd()), &is) == nil && unix.Stat(os.DevNull, &null) == nil && is.Mode&unix.S_IFMT == unix.S_IFCHR && is.Rdev == null.Rdev
}

// sameFile reports whether two writers are the same file, as with "2>&1".
func sameFile(a, b io.Writer) bool {
	fa, okA := a.(*os.File)
	fb, okB := b.(*os.File)
	if !okA || !okB {
		return false
	}
	var is, other unix.Stat_t
	return unix.Fstat(int(fa.Fd()), &is) == nil && unix.Fstat(int(fb.Fd()), &other) == nil &&
		is.Dev == other.Dev && is.Ino == other.Ino
}

// finish brings what the program has written for the user to this host. ran is how the program ended.
func (p *program) finish(ctx context.Context, m *harness.Machine, ran error) error {
	if p.test == nil {
		return ran
	}
	for _, path := range p.test.Outputs() {
		if err := m.CopyOut(ctx, path, path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if ran == nil && p.log != nil {
		if err := p.log.Finish(); err != nil {
			return nil // the go command does not cache the result
		}
	}
	return ran
}
