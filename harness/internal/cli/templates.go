package cli

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/printable"
)

const templatesUsage = `guesthouse templates [-clear]

Lists the saved machines in the template cache, each with its guest program, or with "platform".
The most recently used comes first. Instead of booting a machine, run restores a saved machine
of the same kind. It delivers a new guest program into a restored platform.`

func templatesCommand(_ context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("templates", flag.ContinueOnError)
	remove := flags.Bool("clear", false, "remove all saved machines; machines that were restored from them continue to run")
	if err := parseFlags(flags, args, std, templatesUsage); err != nil {
		return err
	}
	if *remove {
		return new(harness.TemplateCache).Clear()
	}
	cache, err := template.OpenCache("")
	if err != nil {
		return fmt.Errorf("list templates: %w", err)
	}
	table := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	for _, t := range cache.List() {
		fmt.Fprintf(table, "%s\t%s\t%.0f MiB\tused %s\t%s\n", t.Key, t.Target, float64(t.Bytes)/(1<<20), t.Used.Format(time.DateTime),
			printable.Text(t.Guest))
	}
	return table.Flush()
}
