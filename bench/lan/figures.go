package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

// fewest is how many runs a comparison needs.
const fewest = 5

// section is the part of README.md that shows the results.
func section(rows suite.Rows, results publish.Results) string {
	var b strings.Builder
	b.WriteString(results.Head())
	if results.Runs < fewest {
		b.WriteString("So few runs show that the benchmark works, and not how fast the networks are.\n\n")
	}
	table(&b, rows, func(k kind) (string, string) { return k.heading(), cost(k) })
	goals(&b, rows)
	b.WriteString("\nThe same as speed:\n\n")
	table(&b, rows, func(k kind) (string, string) {
		if k.speed == "" {
			return "", ""
		}
		return k.speed, k.metrics[1]
	})
	fmt.Fprintf(&b, "\nProcessor time of QEMU, of the test's process and of passt, in milliseconds; for round trips, that of all %d:\n\n", trips)
	table(&b, rows, func(k kind) (string, string) {
		if k.measure == nil {
			return "", ""
		}
		return k.title, cpu
	})
	b.WriteString("\n")
	for _, f := range rows.Failures(results.Runs) {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	b.WriteString("\n[results.md](results.md) is the whole report.\n\n")
	return b.String()
}

// table writes a table with a row for each kind, of which shown returns the title and the metric. A kind without a title
// has no row.
func table(b *strings.Builder, rows suite.Rows, shown func(kind) (title, metric string)) {
	b.WriteString("| measurement |")
	for _, network := range allNetworks {
		fmt.Fprintf(b, " %s |", labels[network])
	}
	b.WriteString(" lan / slirp |\n| --- |" + strings.Repeat(" ---: |", len(allNetworks)+1) + "\n")
	for _, k := range kinds {
		title, metric := shown(k)
		if title == "" {
			continue
		}
		fmt.Fprintf(b, "| %s |", title)
		for _, network := range allNetworks {
			fmt.Fprintf(b, " %s |", rows.Median(k.name, network, metric))
		}
		fmt.Fprintf(b, " %s |\n", ratio(rows, k, ours, metric))
	}
}

// goals writes which goals lan misses.
func goals(b *strings.Builder, rows suite.Rows) {
	var missed []string
	for _, k := range kinds {
		x, ok := rows.Value(k.name, ours, cost(k))
		y, there := rows.Value(k.name, user, cost(k))
		if k.goal > 0 && ok && there && x > k.goal*y {
			missed = append(missed, fmt.Sprintf("- %s: %.2f times slirp's time; the goal is at most %.2f times", k.title, x/y, k.goal))
		}
	}
	if len(missed) == 0 {
		b.WriteString("\nLan reaches its goals.\n")
		return
	}
	b.WriteString("\nLan misses these goals:\n\n" + strings.Join(missed, "\n") + "\n")
}
