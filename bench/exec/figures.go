package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

// section is the part of README.md that shows the results.
func section(rows suite.Rows, results publish.Results) string {
	var b strings.Builder
	median := func(name string) string { return rows.Median(name, ours, ms) }
	ratio := func(name, metric, other string) string { return ratio(rows, name, metric, other) }
	b.WriteString(results.Head() + "In milliseconds, and as a ratio to the restored machine's first echo or to the cold boot in the same run:\n\n" +
		"| target | restored, first echo | platform, ready | empty test | / restored | first empty test | 8 empty tests | cold, first echo | edit to result | / cold | beyond go test | / cold | unedited |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, tg := range targets {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", tg,
			median("restore-udp/"+tg), median("platform/"+tg), median("exec/"+tg), ratio("exec/"+tg, ms, "restore-udp/"+tg),
			median("exec-first/"+tg), median("exec-8/"+tg), median("cold-udp/"+tg),
			median("edit/"+tg), ratio("edit/"+tg, ms, "cold-udp/"+tg),
			rows.Median("edit/"+tg, ours, beyondGoTest), ratio("edit/"+tg, beyondGoTest, "cold-udp/"+tg), median("unedited/"+tg))
	}
	fmt.Fprintf(&b, "\nThe empty test on a kernel that has 9p, as %s needs it, in milliseconds:\n\n| target | kernel | guesthouse | %s | %s / guesthouse |\n| --- | --- | ---: | ---: | ---: |\n", peer, peer, peer)
	for _, tg := range targets {
		theirs, ratio := rows.Median("exec-9p/"+tg, peer, ms), "–"
		x, ok := rows.Value("exec-9p/"+tg, peer, ms)
		if y, there := rows.Value("exec-9p/"+tg, ours, ms); ok && there && y > 0 {
			ratio = fmt.Sprintf("%.0f", x/y)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", tg, peerTargets[tg].kernel, median("exec-9p/"+tg), theirs, ratio)
	}
	b.WriteString("\nOne file, copied into a restored guest and back, in MB/s:\n\n| target | MiB | in | out |\n| --- | ---: | ---: | ---: |\n")
	for _, tg := range copyTargets {
		for _, size := range copySizes {
			fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", tg, size,
				rows.Median(fmt.Sprintf("copy-in/%d/%s", size, tg), ours, megabytes), rows.Median(fmt.Sprintf("copy-out/%d/%s", size, tg), ours, megabytes))
		}
	}
	fmt.Fprintf(&b, "\nMachines of %s that are restored from one template, up to the first echo of each:\n\n| machines | a second | processor time of each, ms |\n| --- | ---: | ---: |\n", manyTarget)
	for _, name := range []string{fmt.Sprintf("%d-in-turn", inTurn), fmt.Sprintf("%d-at-once", atOnce)} {
		speed := "–"
		if v, ok := rows.Value("machines/"+name, ours, perSecond); ok {
			speed = fmt.Sprintf("%.1f", v)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.ReplaceAll(name, "-", " "), speed, rows.Median("machines/"+name, ours, cpu))
	}
	b.WriteString("\n[results.md](results.md) is the whole report.\n\n")
	return b.String()
}

// ratio returns how many times as long a case takes, by a metric of its own, as another one takes.
func ratio(rows suite.Rows, name, metric, other string) string {
	x, ok := rows.Value(name, ours, metric)
	y, there := rows.Value(other, ours, ms)
	if !ok || !there || y == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x/y)
}
