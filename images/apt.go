package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/testcache"
)

// An apt runs Debian's own tools with a private state, for another architecture and
// without installed packages, in a directory that is removed afterwards. It uses the
// host's sources, keys, proxies and passwords, so apt checks every index and every
// file against the keys that the host trusts.
type apt struct {
	dir     string // everything that apt writes
	options []string
	env     []string

	get, cache, dpkgDeb string // paths of the programs

	// updateFailed is the error of "apt-get update". It does not fail the build by
	// itself, because the missing index may be one that the build does not need.
	updateFailed error
}

// ownKernelHint is the hint for a host that cannot fetch Debian's packages.
const ownKernelHint = "give your own kernel and its modules with -kernel FILE -modules DIR, or with Options.Kernel and Options.Modules"

// noAptHint is the hint for a host without apt.
func noAptHint() string {
	return fmt.Sprintf("use -kernel %s, which needs no apt, for %s, or %s", gokrazyKernel, strings.Join(gokrazyTargets(), " and "), ownKernelHint)
}

// config is the content of a configuration file that apt reads after those of
// the host. Command line options cannot replace the file, because they cannot empty
// a list.
const config = `#clear APT::Architectures;
APT::Architecture "%[1]s";
APT::Architectures { "%[1]s"; };

// The host's hooks are for the host's packages: docker-clean deletes archives, and
// others rebuild indexes.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;

// These indexes do not describe packages.
#clear Acquire::Languages;
Acquire::Languages { "none"; };
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::IndexTargets::deb::CNF;

Acquire::Retries "3";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";

// Even if the host's configuration allows these.
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
`

// errNoApt is wrapped by the errors of a host without apt.
var errNoApt = errors.New("this is not a Debian system")

// findPrograms looks for apt's programs. Its error wraps errNoApt.
func (a *apt) findPrograms() error {
	for name, path := range map[string]*string{"apt-get": &a.get, "apt-cache": &a.cache, "dpkg-deb": &a.dpkgDeb} {
		var err error
		if *path, err = testcache.LookPath(name); err != nil {
			return fmt.Errorf("%w: %w", errNoApt, err)
		}
	}
	return nil
}

func hasApt() bool { return new(apt).findPrograms() == nil }

func newApt(dir, arch string) (*apt, error) {
	a := &apt{dir: dir}
	if err := a.findPrograms(); err != nil {
		return nil, fail("fetch kernel", arch, err, noAptHint())
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
			return nil, err
		}
	}
	conf, status := filepath.Join(dir, "apt.conf"), filepath.Join(dir, "status")
	if err := os.WriteFile(conf, fmt.Appendf(nil, config, arch), 0o666); err != nil {
		return nil, err
	}
	if err := os.WriteFile(status, nil, 0o666); err != nil {
		return nil, err
	}
	a.options = []string{
		"-c", conf, "-q",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::State::status=" + status,
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
	}
	if os.Geteuid() == 0 {
		// As root, apt downloads as the user _apt, which may not write into this
		// directory. apt checks the files in either case.
		a.options = append(a.options, "-o", "APT::Sandbox::User=root")
	}
	a.env = append(os.Environ(), "LC_ALL=C", "TMPDIR="+dir)
	return a, nil
}

func (a *apt) args(verb string, args ...string) []string {
	return append(append(append([]string(nil), a.options...), verb), args...)
}

// update fetches the indexes. It stores a failure in updateFailed; find reports it if a
// package is missing.
func (a *apt) update(ctx context.Context) error {
	_, err := run(ctx, command{dir: a.dir, env: a.env, path: a.get, args: a.args("update")})
	if ctx.Err() != nil {
		return err
	}
	a.updateFailed = err
	return nil
}

// A stanza is a package as the signed index describes it.
type stanza struct {
	imagecache.Deb
	depends string
}

// show returns the versions of a package, or only the one that apt would install.
// It returns none if there is no such package.
func (a *apt) show(ctx context.Context, name string, allVersions bool) ([]stanza, error) {
	var out bytes.Buffer
	args := a.args("show", name)
	if !allVersions {
		args = a.args("show", "--no-all-versions", name)
	}
	_, err := run(ctx, command{dir: a.dir, env: a.env, path: a.cache, args: args, stdout: &out})
	var exit *exec.ExitError
	if errors.As(err, &exit) && out.Len() == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseStanzas(out.String(), name), nil
}

func parseStanzas(text, name string) (all []stanza) {
	for _, block := range strings.Split(text, "\n\n") {
		var s stanza
		for _, line := range strings.Split(block, "\n") {
			key, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch key {
			case "Package":
				s.Package = value
			case "Version":
				s.Version = value
			case "SHA256":
				s.SHA256 = value
			case "Size":
				s.Size, _ = strconv.ParseInt(value, 10, 64)
			case "Depends":
				s.depends = value
			}
		}
		if s.Package == name {
			all = append(all, s)
		}
	}
	return all
}

// find returns one version of a package. If version is empty, it returns the one that
// apt would install.
func (a *apt) find(ctx context.Context, name, version string) (stanza, error) {
	all, err := a.show(ctx, name, version != "")
	if err != nil {
		return stanza{}, err
	}
	for _, s := range all {
		if version == "" || s.Version == version {
			if len(s.SHA256) != 64 {
				return stanza{}, fmt.Errorf("%v: the index gives no SHA-256", s.Deb)
			}
			return s, nil
		}
	}
	wanted := strings.TrimSpace(name + " " + version)
	if a.updateFailed != nil {
		return stanza{}, fmt.Errorf("no package %s, and %w", wanted, a.updateFailed)
	}
	return stanza{}, &missingError{wanted: wanted}
}

// A missingError says that the sources do not offer a package. The network is not at fault.
type missingError struct {
	wanted string
	near   []string // packages of kernels with similar names
}

func (e *missingError) Error() string {
	text := "apt's sources offer no package " + e.wanted
	if len(e.near) > 0 {
		text += "; similar names are " + strings.Join(e.near, ", ")
	}
	return text
}

// kernelDepends matches the packages that hold parts of a kernel, and their versions,
// in the dependencies of the kernel's package. Releases of Debian distribute the files
// over these packages in different ways.
var kernelDepends = regexp.MustCompile(`^(linux-(?:image|binary|modules|base)-[0-9][^ (]*)(?: \(= ([^)]+)\))?$`)

// resolve returns the packages that make up the kernel of a package. If the package is a metapackage,
// they are the packages that it depends on, directly or not. An empty version means the newest one.
func (a *apt) resolve(ctx context.Context, name, version string) (imagecache.KernelSet, error) {
	first, err := a.find(ctx, name, version)
	if missing, ok := errors.AsType[*missingError](err); ok {
		missing.near = a.nearest(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	var set imagecache.KernelSet
	seen := map[string]bool{name: true}
	for queue := []stanza{first}; len(queue) > 0; queue = queue[1:] {
		meta := false
		for _, depend := range strings.Split(queue[0].depends, ",") {
			m := kernelDepends.FindStringSubmatch(strings.TrimSpace(depend))
			if m == nil {
				continue
			}
			meta = meta || strings.HasPrefix(m[1], imagePrefix)
			if seen[m[1]] {
				continue
			}
			seen[m[1]] = true
			s, err := a.find(ctx, m[1], m[2])
			if err != nil {
				return nil, err
			}
			queue = append(queue, s)
		}
		if !meta && concrete.MatchString(queue[0].Package) {
			set = append(set, queue[0].Deb)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%v depends on no kernel package: %q", first.Deb, first.depends)
	}
	return set, nil
}

// imagePrefix begins the names of the packages of kernels.
const imagePrefix = "linux-image-"

// concrete matches the packages that hold files of a kernel, unless they depend on another linux-image.
var concrete = regexp.MustCompile(`^linux-(?:image|binary|modules|base)-(?:unsigned-)?[0-9]`)

// offers reports whether the sources still offer a set that was tested. If they
// offer the same version with another hash, it returns an error.
func (a *apt) offers(ctx context.Context, set imagecache.KernelSet) (bool, error) {
	for _, want := range set {
		all, err := a.show(ctx, want.Package, true)
		if err != nil {
			return false, err
		}
		found := false
		for _, got := range all {
			if got.Version != want.Version {
				continue
			}
			if got.SHA256 != want.SHA256 {
				return false, &mismatchError{what: want.String() + " in apt's index", want: want.SHA256, got: got.SHA256}
			}
			found = true
		}
		if !found {
			return false, nil
		}
	}
	return len(set) > 0, nil
}

// A mismatchError says that a file does not have the expected hash.
type mismatchError struct{ what, want, got string }

func (e *mismatchError) Error() string {
	return fmt.Sprintf("%s: its SHA-256 is %s, not %s", e.what, e.got, e.want)
}

// download fetches one package file and checks it.
func (a *apt) download(ctx context.Context, d imagecache.Deb) (path string, err error) {
	// apt chooses the file's name. In an empty directory, Glob finds it.
	dir, err := os.MkdirTemp(filepath.Join(a.dir, "debs"), "")
	if err != nil {
		return "", err
	}
	if _, err := run(ctx, command{dir: dir, env: a.env, path: a.get, args: a.args("download", d.Package+"="+d.Version)}); err != nil {
		return "", fmt.Errorf("%v: %w", d, err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(files) != 1 {
		return "", fmt.Errorf("%v: apt-get download left %d files instead of one", d, len(files))
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return "", err
	}
	if d.Size > 0 && info.Size() != d.Size {
		return "", fmt.Errorf("%v: the file has %d bytes instead of %d", d, info.Size(), d.Size)
	}
	sum, err := imagecache.HashFile(files[0])
	if err != nil {
		return "", err
	}
	if sum != d.SHA256 {
		return "", &mismatchError{what: d.String(), want: d.SHA256, got: sum}
	}
	return files[0], nil
}
