package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"

	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/target"
)

const kernelsUsage = `guesthouse kernels [-target T] [-all] [-cached] [-clear]

Lists the kernels that -kernel accepts by name: for each target those that the host's apt
offers, gokrazy's, the kernel of the host, and those in the cache. Without -all, of apt's
packages it lists only the metapackages, which lead to the newest kernel of each kind. A
kernel that was fetched for a package stays in the cache; -clear removes it, so that the next
use fetches the newest.`

func kernelsCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	only := flags.String("target", "", "the only `target` to list (default: all targets)")
	all := flags.Bool("all", false, "list every package of a kernel, not only the metapackages")
	cached := flags.Bool("cached", false, "list only the kernels in the cache, which needs no network")
	remove := flags.Bool("clear", false, "remove all kernels from the cache except the tested ones")
	dir := flags.String("cache", "", cacheUsage)
	if err := parseFlags(flags, args, std, kernelsUsage); err != nil {
		return err
	}
	targets, err := chosenTargets(*only)
	if err != nil {
		return fmt.Errorf("kernels: %w", err)
	}
	cache, err := imagecache.Open(*dir)
	if err != nil {
		return err
	}
	if *remove {
		return cache.RemoveKernels(ctx)
	}
	offers, errs := make([][]images.Offer, len(targets)), make([]error, len(targets))
	if !*cached {
		var lists sync.WaitGroup
		for i, t := range targets {
			lists.Go(func() { offers[i], errs[i] = images.Offers(ctx, t.Name, images.Options{Cache: *dir}) })
		}
		lists.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	table := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "TARGET\tKERNEL\tVERSION\tDOWNLOAD\tCACHED")
	for i, t := range targets {
		if err := listKernels(ctx, table, cache, t, offers[i], *all, *cached); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	// The cached kernels are listed even if apt fails.
	return errors.Join(errs...)
}

// listKernels writes the rows of a target.
func listKernels(ctx context.Context, table *tabwriter.Writer, cache *imagecache.Cache, t target.Target, offers []images.Offer, all, cached bool) error {
	tested, err := imagecache.Tested(t.Name)
	if err != nil {
		return err
	}
	row := func(name, version string, download int64, set imagecache.KernelSet) {
		size, where := "", ""
		if download > 0 {
			size = fmt.Sprintf("%.1f MB", float64(download)/1e6)
		}
		if path, bytes, ok := cache.Holds(set); ok {
			where = fmt.Sprintf("%s (%.0f MiB)", path, float64(bytes)/(1<<20))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.Name, name, cmp.Or(version, "-"), cmp.Or(size, "-"), cmp.Or(where, "-"))
	}
	set := tested
	if k, err := cache.Kernel(t.Name, tested); err == nil {
		set = k.Set
	}
	if len(set) > 0 {
		row("debian", set[0].Version, set.Size(), set)
	}
	gokrazy, err := imagecache.Gokrazy(t.Name)
	if err != nil {
		return err
	}
	if len(gokrazy) > 0 {
		row("gokrazy", gokrazy[0].Version, gokrazy.Size(), gokrazy)
	}
	if t.GOARCH == runtime.GOARCH && !cached {
		if k, err := images.FetchKernel(ctx, t.Name, images.Options{Kernel: "host"}); err == nil {
			row("host", k.Release, 0, nil)
		}
	}
	named := cache.NamedKernels(t.Name)
	for _, o := range offers {
		held := named[o.Name]
		delete(named, o.Name)
		switch {
		case held != nil && held[0].Version != o.Version:
			row("debian:"+o.Name, held[0].Version+" (apt: "+o.Version+")", held.Size(), held)
		case held != nil || o.Meta() || all:
			row("debian:"+o.Name, o.Version, o.Size, held)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		row("debian:"+name, named[name][0].Version, named[name].Size(), named[name])
	}
	return nil
}
