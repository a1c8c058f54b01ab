package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"guesthouse.example/bench/internal/publish"
)

// complete returns an error for a run that lacks a value of the tables.
func complete(text []byte) error {
	r := &report{}
	if err := json.Unmarshal(text, &r.rows); err != nil {
		return err
	}
	for _, c := range (&bench{}).cases() {
		for _, metric := range c.Metrics {
			if x, ok := r.rows.At(c.Name, c.Harness, metric); !ok || x.Median == nil {
				return fmt.Errorf("%s of %s has no result: %s", c.Name, c.Harness, x.Failed)
			}
		}
	}
	return nil
}

// pages returns the pages that show the newest results.
func pages(root string) (publish.Pages, error) {
	results, err := publish.Read(filepath.Join(root, "bench", "exec"))
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(results.JSON, &r.rows); err != nil {
		return nil, fmt.Errorf("results of exec: %w", err)
	}
	p := publish.Pages{}
	err = p.Section(root, filepath.Join("bench", "exec", "README.md"), r.section(results))
	return p, err
}

// section is the part of README.md that shows the results.
func (r *report) section(results publish.Results) string {
	var b strings.Builder
	_, head, _ := strings.Cut(results.Report, "\n") // without its title
	head, _, _ = strings.Cut(head, "\n|")
	b.WriteString(strings.TrimRight(head, "\n") + "\n\nIn milliseconds, and as a ratio to the restored machine's first echo or to the cold boot in the same run:\n\n" +
		"| target | restored, first echo | platform, ready | empty test | / restored | first empty test | 8 empty tests | cold, first echo | edit to result | / cold | unedited |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, tg := range targets {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", tg,
			r.ms("restore-udp/"+tg), r.ms("platform/"+tg), r.ms("exec/"+tg), r.ratio("exec/"+tg, "restore-udp/"+tg),
			r.ms("exec-first/"+tg), r.ms("exec-8/"+tg), r.ms("cold-udp/"+tg), r.ms("edit/"+tg), r.ratio("edit/"+tg, "cold-udp/"+tg), r.ms("unedited/"+tg))
	}
	fmt.Fprintf(&b, "\nThe empty test on a kernel that has 9p, as %s needs it, in milliseconds:\n\n| target | kernel | guesthouse | %s | %s / guesthouse |\n| --- | --- | ---: | ---: | ---: |\n", peer, peer, peer)
	for _, tg := range targets {
		theirs, ratio := r.rows.Median("exec-9p/"+tg, peer, ms), "–"
		x, ok := r.rows.Value("exec-9p/"+tg, peer, ms)
		if y, there := r.rows.Value("exec-9p/"+tg, ours, ms); ok && there && y > 0 {
			ratio = fmt.Sprintf("%.0f", x/y)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", tg, peerTargets[tg].kernel, r.ms("exec-9p/"+tg), theirs, ratio)
	}
	b.WriteString("\nOne file, copied into a restored guest and back, in MB/s:\n\n| target | MiB | in | out |\n| --- | ---: | ---: | ---: |\n")
	for _, tg := range copyTargets {
		for _, size := range copySizes {
			fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", tg, size,
				r.rows.Median(fmt.Sprintf("copy-in/%d/%s", size, tg), ours, megabytes), r.rows.Median(fmt.Sprintf("copy-out/%d/%s", size, tg), ours, megabytes))
		}
	}
	fmt.Fprintf(&b, "\nMachines of %s that are restored from one template, up to the first echo of each:\n\n| machines | a second | processor time of each, ms |\n| --- | ---: | ---: |\n", manyTarget)
	for _, name := range []string{fmt.Sprintf("%d-in-turn", inTurn), fmt.Sprintf("%d-at-once", atOnce)} {
		speed := "–"
		if v, ok := r.rows.Value("machines/"+name, ours, perSecond); ok {
			speed = fmt.Sprintf("%.1f", v)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.ReplaceAll(name, "-", " "), speed, r.rows.Median("machines/"+name, ours, cpu))
	}
	b.WriteString("\n[results.md](results.md) is the whole report.\n\n")
	return b.String()
}

func (r *report) ms(name string) string { return r.rows.Median(name, ours, ms) }

// ratio returns how many times as long a case takes as another one.
func (r *report) ratio(name, other string) string {
	x, ok := r.rows.Value(name, ours, ms)
	y, there := r.rows.Value(other, ours, ms)
	if !ok || !there || y == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x/y)
}
