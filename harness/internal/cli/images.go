package cli

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"guesthouse.example/internal/imagecache"
)

const imagesUsage = `guesthouse images [-clear]

Lists the kernels, the builds of u-root's commands and the initramfs archives in the cache. Within
each kind, the most recently used comes first.`

func imagesCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	remove := flags.Bool("clear", false, "remove everything except the kernels; only the kernels would need a network to come back")
	dir := flags.String("cache", "", cacheUsage)
	if err := parseFlags(flags, args, std, imagesUsage); err != nil {
		return err
	}
	cache, err := imagecache.Open(*dir)
	if err != nil {
		return err
	}
	if *remove {
		return cache.Clear(ctx)
	}
	table := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	for _, e := range cache.List() {
		fmt.Fprintf(table, "%s\t%s\t%.0f MiB\tused %s\n", e.Kind, e.Name, float64(e.Bytes)/(1<<20), e.Used.Format(time.DateTime))
	}
	return table.Flush()
}
