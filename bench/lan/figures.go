package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/internal/svg"
)

// fewest is how many runs a comparison needs.
const fewest = 5

// complete returns an error for a run that lacks a value of the tables. Not every host has passt.
func complete(rows suite.Rows) error {
	for _, k := range kinds {
		for _, network := range []string{ours, user, filtered} {
			for _, metric := range k.metrics {
				if err := rows.Lacks(k.name, network, metric); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pages returns the pages that show the newest results.
func pages(root string) (publish.Pages, error) {
	results, err := publish.Read(filepath.Join(root, "bench", "lan"))
	if err != nil {
		return nil, err
	}
	rows, err := suite.ReadRows(results)
	if err != nil {
		return nil, err
	}
	p := publish.Pages{}
	for _, theme := range svg.Themes {
		p[filepath.Join("bench", "lan", "chart-"+theme.Name+".svg")] = barChart(rows, results.Machine, results.Date, results.Runs).SVG(theme)
	}
	err = p.Section(root, filepath.Join("bench", "lan", "README.md"), section(rows, results))
	return p, err
}

// section is the part of README.md that shows the results.
func section(rows suite.Rows, results publish.Results) string {
	var b strings.Builder
	_, head, _ := strings.Cut(results.Report, "\n") // without its title
	head, _, _ = strings.Cut(head, "\n|")
	b.WriteString(strings.TrimRight(head, "\n") + "\n\n")
	if results.Runs < fewest {
		b.WriteString("So few runs show that the benchmark works, and not how fast the networks are.\n\n")
	}
	b.WriteString("| measurement |")
	for _, network := range allNetworks {
		fmt.Fprintf(&b, " %s |", labels[network])
	}
	b.WriteString(" lan / slirp |\n| --- |" + strings.Repeat(" ---: |", len(allNetworks)+1) + "\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "| %s |", k.title)
		for _, network := range allNetworks {
			fmt.Fprintf(&b, " %s |", rows.Median(k.name, network, cost(k)))
		}
		fmt.Fprintf(&b, " %s |\n", ratio(rows, k, ours, cost(k)))
	}
	b.WriteString("\nThe same as speed:\n\n| measurement |")
	for _, network := range allNetworks {
		fmt.Fprintf(&b, " %s |", labels[network])
	}
	b.WriteString(" lan / slirp |\n| --- |" + strings.Repeat(" ---: |", len(allNetworks)+1) + "\n")
	for _, k := range kinds {
		if k.speed == "" {
			continue
		}
		fmt.Fprintf(&b, "| %s |", k.speed)
		for _, network := range allNetworks {
			fmt.Fprintf(&b, " %s |", rows.Median(k.name, network, k.metrics[1]))
		}
		fmt.Fprintf(&b, " %s |\n", ratio(rows, k, ours, k.metrics[1]))
	}
	b.WriteString("\nProcessor time of QEMU, of the test's process and of passt, in milliseconds:\n\n| measurement |")
	for _, network := range allNetworks {
		fmt.Fprintf(&b, " %s |", labels[network])
	}
	b.WriteString(" lan / slirp |\n| --- |" + strings.Repeat(" ---: |", len(allNetworks)+1) + "\n")
	for _, k := range kinds {
		if k.measure == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s |", k.title)
		for _, network := range allNetworks {
			fmt.Fprintf(&b, " %s |", rows.Median(k.name, network, cpu))
		}
		fmt.Fprintf(&b, " %s |\n", ratio(rows, k, ours, cpu))
	}
	b.WriteString("\n[results.md](results.md) is the whole report.\n\n")
	return b.String()
}
