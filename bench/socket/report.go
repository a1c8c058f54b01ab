package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"guesthouse.example/bench/internal/results"
	"guesthouse.example/internal/svg"
)

// A report describes a run in words, tables and a chart.
type report struct {
	*bench
	stalled stalled
	begin   time.Time
	byKey   map[key]row
	rows    []row
}

func newReport(b *bench, s stalled, begin time.Time) *report {
	r := &report{bench: b, stalled: s, begin: begin, byKey: map[key]row{}, rows: rows(b.results)}
	for _, row := range r.rows {
		r.byKey[key{row.Case, row.Server, row.Metric}] = row
	}
	return r
}

func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	var md strings.Builder
	r.markdown(&md)
	for name, text := range map[string]string{
		"socket.json": string(text) + "\n", "socket.md": md.String(), "socket.svg": string(r.chart().SVG(svg.Light)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# Echo servers compared\n\n%s, %s UTC.\n\n", machine(), r.begin.UTC().Format("2006-01-02 15:04"))
	fmt.Fprintf(w, "%d interleaved runs of %v after %v; medians, with the least and the greatest in brackets. "+
		"\"ratio\" is %s's CPU time for an echo divided by that server's: below 1 %s is ahead. "+
		"Clients have one request in flight; those of udp-pipelined have %d, sent together.\n\n", r.runs, r.run, r.warmUp, ours, ours, pipelined)
	if disturbed, all := r.disturbed(); disturbed > 0 {
		fmt.Fprintf(w, "**The machine was not quiet**: in %d of %d runs the generator, which never sleeps, had less than %.0f %% of its core. "+
			"Then CPU time for an echo includes what other processes cost in caches and switches, and the other figures mean little.\n\n",
			disturbed, all, 100*quiet)
	}
	if r.noRing {
		fmt.Fprint(w, "**The generator had no io_uring** for its TCP clients: Linux is older than 6.1 or does not allow it. "+
			"With epoll it hardly keeps a TCP server busy.\n\n")
	}
	r.summaryTable(w)
	for _, c := range r.cases {
		r.caseTable(w, c)
	}
	r.memoryTables(w)
	r.stalledTable(w)
	fmt.Fprintf(w, "## Servers\n\n")
	for _, s := range r.servers {
		fmt.Fprintf(w, "- %s: %s\n", s.name, s.about)
	}
}

func (r *report) disturbed() (disturbed, all int) {
	for k, shares := range r.notes {
		if k.metric != generatorRan {
			continue
		}
		for _, share := range shares {
			all++
			if share < quiet {
				disturbed++
			}
		}
	}
	return disturbed, all
}

// summaryTable writes a table of all ratios.
func (r *report) summaryTable(w io.Writer) {
	fmt.Fprintf(w, "| protocol/clients/bytes | %s, CPU µs an echo |", ours)
	for _, s := range r.servers {
		if s.name != ours {
			fmt.Fprintf(w, " / %s |", s.name)
		}
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" ---: |", len(r.servers)))
	for _, c := range r.cases {
		own := ""
		if cpu := r.byKey[key{c.String(), ours, cpuPerEcho}]; cpu.Median != nil {
			own = fmt.Sprintf("%.1f", *cpu.Median)
		}
		fmt.Fprintf(w, "| %s | %s |", c, own)
		for _, s := range r.servers {
			switch {
			case s.name == ours:
			case !s.speaks(c.protocol()):
				fmt.Fprint(w, " |")
			case r.byKey[key{c.String(), s.name, cpuPerEcho}].Median == nil:
				fmt.Fprint(w, " **failed** |")
			default:
				fmt.Fprintf(w, " %s%s |", r.ratio(c.String(), s.name, cpuPerEcho), r.mark(c, `\*`, ours, s.name))
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n\\* %s\n\n", sleptNote)
}

func (r *report) caseTable(w io.Writer, c benchCase) {
	fmt.Fprintf(w, "## %s: %s, %d clients, %d bytes\n\n", c, strings.ToUpper(c.protocol()), c.clients, c.bytes)
	fmt.Fprintln(w, "| server | CPU µs an echo | ratio | echoes/s | p50 µs | p99 µs | RSS KiB | server busy | generator idle | lost |")
	fmt.Fprintln(w, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	var failures []string
	for _, s := range r.servers {
		at := func(metric string) row { return r.byKey[key{c.String(), s.name, metric}] }
		cpu := at(cpuPerEcho)
		if cpu.Failed != "" {
			failures = append(failures, fmt.Sprintf("%s succeeded in %d of %d runs; its first failure: %s", s.name, cpu.Runs, r.runs, cpu.Failed))
		}
		switch {
		case !s.speaks(c.protocol()):
			fmt.Fprintf(w, "| %s | not for %s | | | | | | | | |\n", s.name, strings.ToUpper(c.protocol()))
		case cpu.Median == nil:
			fmt.Fprintf(w, "| %s | **failed** | | | | | | | | |\n", s.name)
		default:
			note := func(metric string) string {
				return fmt.Sprintf("%.0f %%", 100*results.Median(r.notes[key{c.String(), s.name, metric}]))
			}
			fmt.Fprintf(w, "| %s | %.2f (%.2f–%.2f) | %s | %.0f | %.0f | %.0f | %.0f | %s | %s | %.2g %% |\n", s.name,
				*cpu.Median, *cpu.Min, *cpu.Max, r.ratio(c.String(), s.name, cpuPerEcho),
				*at(echoesPerS).Median, *at(p50).Median, *at(p99).Median, *at(rss).Median,
				fmt.Sprintf("%.0f%s %%", *at(serverBusy).Median, r.mark(c, `\*`, s.name)), note(generatorIdle), 100*results.Median(r.notes[key{c.String(), s.name, lostShare}]))
		}
	}
	fmt.Fprintln(w)
	for _, f := range failures {
		fmt.Fprintf(w, "- %s\n", f)
	}
	if failures != nil {
		fmt.Fprintln(w)
	}
}

// ratio returns our median divided by the peer's.
func (r *report) ratio(c, peer, metric string) string {
	our, their := r.byKey[key{c, ours, metric}].Median, r.byKey[key{c, peer, metric}].Median
	if peer == ours || our == nil || their == nil || *their <= 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", *our / *their)
}

// sleptNote explains the mark.
var sleptNote = fmt.Sprintf("a server was busy for less than %.0f %% of the time, by the median: it slept, "+
	"and its CPU time includes what being woken costs.", 100*saturated)

// mark returns the mark if one of the servers slept in a case that can keep a server busy.
func (r *report) mark(c benchCase, mark string, servers ...string) string {
	for _, name := range servers {
		if busy := r.byKey[key{c.String(), name, serverBusy}].Median; c.saturates() && busy != nil && *busy < 100*saturated {
			return mark
		}
	}
	return ""
}

// verdict prints the ratios of CPU time for an echo, one line for each case.
func (r *report) verdict(w io.Writer) {
	marked := false
	fmt.Fprintf(w, "CPU time for an echo, %s / peer, of medians:\n", ours)
	for _, c := range r.cases {
		fmt.Fprintf(w, "%-22s", c)
		for _, s := range r.servers {
			if ratio := r.ratio(c.String(), s.name, cpuPerEcho); ratio != "" {
				mark := r.mark(c, "*", ours, s.name)
				marked = marked || mark != ""
				fmt.Fprintf(w, "  %s %s%s", s.name, ratio, mark)
			} else if s.name != ours && s.speaks(c.protocol()) {
				fmt.Fprintf(w, "  %s failed", s.name)
			}
		}
		fmt.Fprintln(w)
	}
	if marked {
		fmt.Fprintf(w, "* %s\n", sleptNote)
	}
	for _, k := range []key{{memoryCase.String(), ours, perService}, {connectionCase.String(), ours, perConnection}} {
		if row := r.byKey[k]; row.Median != nil {
			fmt.Fprintf(w, "%s: %.0f\n", k.metric, *row.Median)
		}
	}
	if disturbed, all := r.disturbed(); disturbed > 0 {
		fmt.Fprintf(w, "the machine was not quiet in %d of %d runs\n", disturbed, all)
	}
}

func (r *report) memoryTables(w io.Writer) {
	for _, table := range []struct {
		title  string
		c      benchCase
		metric string
	}{
		{fmt.Sprintf("Memory of an idle UDP service, of %d", many), memoryCase, perService},
		{fmt.Sprintf("Memory of an idle TCP connection, of %d", many), connectionCase, perConnection},
	} {
		fmt.Fprintf(w, "## %s\n\nPrivate memory of the process beyond the kernel's socket, after the echo of %d bytes on each.\n\n", table.title, table.c.bytes)
		fmt.Fprintf(w, "| server | bytes | threads |\n| --- | ---: | ---: |\n")
		for _, s := range r.servers {
			row, ok := r.byKey[key{table.c.String(), s.name, table.metric}]
			count := ""
			if n := r.notes[key{table.c.String(), s.name, threads}]; n != nil {
				count = fmt.Sprintf("%.0f", results.Median(n))
			}
			switch {
			case !ok:
			case row.Median == nil:
				fmt.Fprintf(w, "| %s | **failed**: %s | |\n", s.name, row.Failed)
			default:
				fmt.Fprintf(w, "| %s | %.0f (%.0f–%.0f) | %s |\n", s.name, *row.Median, *row.Min, *row.Max, count)
			}
		}
		fmt.Fprintln(w)
		if n := r.notes[key{table.c.String(), ours, perSlot}]; n != nil {
			fmt.Fprintf(w, "Each socket of %s is a service of its own here. As the sockets of one service they take %.0f bytes each.\n\n", ours, results.Median(n))
		}
	}
}

func (r *report) stalledTable(w io.Writer) {
	if r.stalled.failed == nil && len(r.stalled.with) == 0 {
		return
	}
	fmt.Fprintf(w, "## A TCP client that never reads\n\n%s with %d UDP and %d TCP clients together, with and without a TCP client that sends without end and never reads.\n\n",
		ours, besideStalled, besideStalled)
	if r.stalled.failed != nil {
		fmt.Fprintf(w, "**failed**: %v\n\n", r.stalled.failed)
		return
	}
	fmt.Fprintf(w, "| clients | p99 µs without | p99 µs with | ratio |\n| --- | ---: | ---: | ---: |\n")
	for _, network := range []string{"udp", "tcp"} {
		without, with := results.Median(r.stalled.without[network]), results.Median(r.stalled.with[network])
		fmt.Fprintf(w, "| %s | %.0f | %.0f | %.2f |\n", network, without, with, with/without)
	}
	fmt.Fprintln(w)
}

// machine names the host, its kernel and the compilers.
func machine() string {
	gcc := "none"
	if out, err := exec.Command("gcc", "-dumpfullversion").Output(); err == nil {
		gcc = strings.TrimSpace(string(out))
	}
	return results.Machine() + ", gcc " + gcc
}
