// Socket compares guesthouse's socket service with other ways to write an echo
// server, on one machine in one run. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
)

type bench struct {
	plan
	ctx     context.Context
	dir     string // of the programs
	results *results.Results[key]
	notes   map[key][]float64 // values that only socket.md has
	broken  map[string]error  // servers that could not be built
	servers []server
	noRing  bool // the generator had no io_uring

	loadCore, serverCore int
}

const (
	// quiet is the share of its core below which the generator was disturbed.
	quiet = 0.97

	// saturated is the share of its core above which a server did not sleep. Waking a server that sleeps
	// takes CPU time, on a virtual machine as much as the echo itself.
	saturated = 0.97
)

func main() {
	// When this thread ends, the kernel kills the processes that start has started from it.
	runtime.LockOSThread()
	allowFiles()
	quick := flag.Bool("quick", false, "run fewer cases, each for a shorter time")
	out := flag.String("out", "../../out/bench", "folder for socket.json, socket.md, socket.svg, and the programs")
	cases := flag.String("cases", "", "run only cases whose names begin with one of these prefixes, separated by commas")
	names := flag.String("servers", "", "run only these servers, separated by commas")
	source := flag.String("source", "../..", "folder of guesthouse's module, whose pages -figures writes")
	figures := flag.Bool("figures", false, "measure nothing: write the project's pages, from the results in the out folder if there are any, otherwise from the published ones")
	flag.Parse()
	if *figures {
		if err := publish.Publish(*source, *out, "socket", complete, pages); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *out, newPlan(*quick), *cases, *names)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, p plan, cases, names string) error {
	begin := time.Now()
	dir, err := filepath.Abs(filepath.Join(out, "bin"))
	if err == nil {
		err = os.MkdirAll(dir, 0o777)
	}
	if err != nil {
		return fmt.Errorf("make folder for programs: %w", err)
	}
	b := &bench{plan: p, ctx: ctx, dir: dir, results: newResults(), notes: map[key][]float64{}, broken: map[string]error{}}
	if b.loadCore, b.serverCore, err = twoCores(); err != nil {
		return err
	}
	if b.servers, err = selected(names); err != nil {
		return err
	}
	if cases != "" {
		b.cases = slices.DeleteFunc(b.cases, func(c benchCase) bool { return !hasPrefix(c.String(), cases) })
	}
	if err := b.build(); err != nil {
		return err
	}
	for _, c := range b.cases {
		b.measure(c)
	}
	if cases == "" || hasPrefix(memoryCase.String(), cases) {
		b.measureServices()
	}
	stalled := b.measureStalled()
	if err := ctx.Err(); err != nil {
		return errors.New("interrupted: nothing is written")
	}
	report := newReport(b, stalled, begin)
	if err := report.write(out); err != nil {
		return err
	}
	report.verdict(os.Stdout)
	fmt.Printf("%s written in %v\n", filepath.Join(out, "socket.{json,md,svg}"), time.Since(begin).Round(time.Second))
	return nil
}

// allowFiles raises the limit of open files as far as the system allows. Servers and the generator
// inherit the limit. A server that needs more fails with an error that says so.
func allowFiles() {
	const plenty = 1 << 16 // evio has two descriptors for each socket
	for _, hard := range []uint64{plenty, 0} {
		var limit syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
			return
		}
		limit.Max = max(limit.Max, hard)
		limit.Cur = limit.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
			return
		}
	}
}

func selected(names string) ([]server, error) {
	if names == "" {
		return servers, nil
	}
	var some []server
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(servers, func(s server) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("select servers: unknown server %q", name)
		}
		some = append(some, servers[i])
	}
	return some, nil
}

func hasPrefix(name, prefixes string) bool {
	for prefix := range strings.SplitSeq(prefixes, ",") {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (b *bench) bin(name string) string { return filepath.Join(b.dir, name) }

// build compiles the generator and the servers. It returns an error if the generator does not compile.
// If a server does not compile, only its rows fail.
func (b *bench) build() error {
	if err := build(b.ctx, b.dir, server{name: "load", source: "c/load.c"}); err != nil {
		return err
	}
	for _, s := range b.servers {
		if err := build(b.ctx, b.dir, s); err != nil {
			b.broken[s.name] = err
		}
	}
	return b.ctx.Err()
}
