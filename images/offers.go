package images

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guesthouse.example/internal/target"
)

// An Offer is a package of a kernel that apt offers.
type Offer struct {
	// Name is the package, and Version its newest version. [Options.Kernel] accepts
	// "debian:" followed by the name.
	Name, Version string

	// Package is the package that holds the kernel, and Size the bytes of its file. For
	// a metapackage, Package is another package than Name.
	Package string
	Size    int64
}

// Meta reports whether the offer is a metapackage: it leads to the newest kernel of its kind.
func (f Offer) Meta() bool { return f.Package != f.Name }

// Offers returns the packages of kernels that the host's apt offers for a target, in the order of their
// names. It fetches apt's lists. It leaves out packages that no machine boots, such as debugging symbols. A host
// without apt has no such packages.
func Offers(ctx context.Context, targetName string, o Options) ([]Offer, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return nil, err
	}
	offers, err := offers(ctx, t, o)
	if errors.Is(err, errNoApt) {
		return nil, nil
	}
	if err != nil {
		return nil, fail("list kernels", t.Name, err, "check the network and apt's sources")
	}
	return offers, nil
}

func offers(ctx context.Context, t target.Target, o Options) ([]Offer, error) {
	c, err := openCache(o)
	if err != nil {
		return nil, err
	}
	b, err := c.BuildOutside(ctx, "kernels-"+t.Name)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a, err := newApt(b.Path("apt"), t.DebianArch)
	if err != nil {
		return nil, err
	}
	defer o.progress("kernels "+t.Name, func(d time.Duration) string {
		return "package lists " + growing(filepath.Join(a.dir, "lists"), 0)(d)
	})()
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	names, err := a.kernelPackages(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		if a.updateFailed != nil {
			return nil, a.updateFailed
		}
		return nil, &missingError{wanted: imagePrefix + "*"}
	}
	var out bytes.Buffer
	args := a.args("show", append([]string{"--no-all-versions"}, names...)...)
	if _, err := run(ctx, command{dir: a.dir, env: a.env, path: a.cache, args: args, stdout: &out}); err != nil {
		return nil, err
	}
	stanzas := map[string]stanza{}
	for _, name := range names {
		for _, s := range parseStanzas(out.String(), name) {
			stanzas[name] = s
		}
	}
	var all []Offer
	for _, name := range names {
		s, ok := stanzas[name]
		if !ok {
			continue // A virtual package.
		}
		f := Offer{Name: name, Version: s.Version}
		for holds, seen := s, map[string]bool{}; ; {
			f.Package, f.Size = holds.Package, holds.Size
			seen[holds.Package] = true
			next, ok := stanzas[holds.image()]
			if !ok || seen[next.Package] {
				break
			}
			holds = next
		}
		all = append(all, f)
	}
	return slices.Clip(all), nil
}

// image returns the package of a kernel that a metapackage depends on, or "".
func (s stanza) image() string {
	for _, depend := range strings.Split(s.depends, ",") {
		if m := kernelDepends.FindStringSubmatch(strings.TrimSpace(depend)); m != nil && strings.HasPrefix(m[1], imagePrefix) {
			return m[1]
		}
	}
	return ""
}
