package images

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
)

// The names of kernels in Options.Kernel. Any other name is a path.
const (
	debianKernel = "debian"
	hostKernel   = "host"
)

// KernelNames splits a comma-separated list of kernels, each as [Options.Kernel] names one.
func KernelNames(list string) ([]string, error) {
	var names []string
	for _, name := range strings.Split(list, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, fmt.Errorf("kernels %q: an empty name in the list: %s", list, kernelSyntax)
		case slices.Contains(names, name):
			return nil, fmt.Errorf("kernels %q: %s is listed twice", list, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// kernelSyntax is the end of an error about a name.
const kernelSyntax = "a kernel is debian, debian:PACKAGE, debian:PACKAGE=VERSION, gokrazy, host, or the path of a file or directory"

// defaultKernel returns the name of the kernel that a machine of a target gets if the options name none. It is
// Debian's tested kernel, or gokrazy's if this host cannot fetch Debian's, because it has no apt, and the cache
// does not have it.
func defaultKernel(t target.Target, c *imagecache.Cache) (string, error) {
	tested, err := imagecache.Tested(t.Name)
	if err != nil {
		return "", err
	}
	gokrazy, err := imagecache.Gokrazy(t.Name)
	if err != nil {
		return "", err
	}
	if len(gokrazy) > 0 && !hasApt() && !c.HasKernel(t.Name, tested) {
		return gokrazyKernel, nil
	}
	return debianKernel, nil
}

// IsKernelName reports whether a kernel in [Options.Kernel] is a name and not a path.
func IsKernelName(kernel string) bool {
	distribution, _, isPackage := strings.Cut(kernel, ":")
	return kernel == "" || distribution == debianKernel || !isPackage && (kernel == gokrazyKernel || kernel == hostKernel)
}

// namedKernel returns the kernel that the options name.
func namedKernel(ctx context.Context, t target.Target, o Options) (Kernel, error) {
	const step = "use kernel"
	why := ""
	if o.Modules != "" && IsKernelName(o.Kernel) {
		return Kernel{}, fail(step, t.Name, errors.New("modules without a kernel file"), ownKernelHint)
	}
	if o.Kernel == "" {
		c, err := openCache(o)
		if err != nil {
			return Kernel{}, err
		}
		if o.Kernel, err = defaultKernel(t, c); err != nil {
			return Kernel{}, err
		}
		why = ", because this host has no apt to fetch Debian's kernel"
	}
	tested, err := imagecache.Tested(t.Name)
	if err != nil {
		return Kernel{}, err
	}
	if distribution, name, isPackage := strings.Cut(o.Kernel, ":"); isPackage && distribution == debianKernel {
		name, version, err := parsePackage(name)
		if err != nil {
			return Kernel{}, fail(step, o.Kernel, err, "list the packages with: guesthouse kernels -target "+t.Name)
		}
		return fetchPackage(ctx, t, tested, name, version, o)
	}
	switch o.Kernel {
	case debianKernel:
		return fetchKernel(ctx, t, tested, o)
	case gokrazyKernel:
		return fetchGokrazy(ctx, t, why, o)
	case hostKernel:
		return runningKernel(t, o)
	}
	info, err := os.Stat(o.Kernel)
	switch {
	case errors.Is(err, os.ErrNotExist) && !strings.Contains(o.Kernel, "/"):
		return Kernel{}, fail(step, o.Kernel, errors.New("no kernel has this name, and there is no such file"), kernelSyntax)
	case err == nil && info.IsDir() && o.Modules == "":
		return directoryKernel(t, o.Kernel, o)
	}
	return ownKernel(t, o)
}

// Debian's rules for names and versions of packages. Sources: Debian Policy 5.6.1 and 5.6.12.
var (
	packageName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	packageVersion = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~:-]*$`)
)

// parsePackage splits PACKAGE or PACKAGE=VERSION.
func parsePackage(text string) (name, version string, err error) {
	name, version, hasVersion := strings.Cut(text, "=")
	if !packageName.MatchString(name) {
		return "", "", fmt.Errorf("%q is not the name of a package", name)
	}
	if hasVersion && !packageVersion.MatchString(version) {
		return "", "", fmt.Errorf("%q is not the version of a package", version)
	}
	return name, version, nil
}

// kernelPackages returns the names of the packages of kernels, without those that no machine boots.
func (a *apt) kernelPackages(ctx context.Context) ([]string, error) {
	var out bytes.Buffer
	if _, err := run(ctx, command{dir: a.dir, env: a.env, path: a.cache, args: a.args("pkgnames", imagePrefix), stdout: &out}); err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(strings.Fields(out.String()), notBootable.MatchString)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// notBootable matches packages with debugging symbols, the sources of signed packages, and kernels without
// a signature, which are the same as those with one.
var notBootable = regexp.MustCompile(`-(?:dbg|dbgsym|signed-template|unsigned)$|^linux-image-unsigned-`)

// mostNear is the most names that an error about an unknown package lists.
const mostNear = 5

// nearest returns the packages of kernels whose names are most similar to a name.
func (a *apt) nearest(ctx context.Context, name string) []string {
	names, err := a.kernelPackages(ctx)
	if err != nil {
		return nil // The error about the unknown package is enough.
	}
	slices.SortStableFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(distance(name, x), distance(name, y)), cmp.Compare(x, y))
	})
	return names[:min(len(names), mostNear)]
}

// distance returns how many bytes must be inserted, removed or replaced to make one string of the other
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
