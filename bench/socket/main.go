// Socket compares guesthouse's socket service with other ways to write an echo
// server, on one machine in one run: see README.md.
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
)

type bench struct {
	plan
	ctx     context.Context
	dir     string // of the programs
	results *results
	notes   map[key][]float64 // what socket.md has and socket.json has not
	broken  map[string]error  // servers that could not be built
	servers []server

	loadCore, serverCore int
}

// Shown beside the metrics, so that a reader sees which side was the limit.
const (
	serverBusy    = "server_busy"
	generatorIdle = "generator_idle"
	lostShare     = "lost"
	generatorRan  = "generator_ran" // it never sleeps: below 1 something else ran on its core
	threads       = "threads"
	perSlot       = "bytes_per_slot" // of one service with all sockets
)

func main() {
	// See start.
	runtime.LockOSThread()
	allowFiles()
	quick := flag.Bool("quick", false, "a part of the cases, for less long")
	out := flag.String("out", "../../out/bench", "folder for socket.json, socket.md, socket.svg, and the programs")
	cases := flag.String("cases", "", "only cases whose names start so, separated by commas")
	names := flag.String("servers", "", "only these servers, separated by commas")
	window := flag.Int("window", 1, "requests in flight of each UDP client, sent together")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	p := newPlan(*quick)
	p.window = *window
	err := run(ctx, *out, p, *cases, *names)
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
	fmt.Printf("%s written in %v\n", filepath.Join(out, "socket.{json,md,svg}"), time.Since(begin).Round(time.Second))
	return nil
}

// allowFiles raises the limit of open files, which the processes that are
// started inherit, as far as it may: servers and the generator raise their own to
// the same. One that needs more says so.
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
			return nil, fmt.Errorf("select servers: there is no %q", name)
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

// build compiles the generator, without which there is nothing to measure, and
// the servers, of which one that fails has failed rows.
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

// measure runs all servers on a case, one after the other, as often as the plan says:
// what changes on the machine meanwhile meets all of them.
func (b *bench) measure(c benchCase) {
	const enough = 2 // a server that fails takes long
	failures := map[string]int{}
	for n := range b.runs {
		for _, s := range b.servers {
			if !s.speaks(c.network) || b.ctx.Err() != nil || failures[s.name] == enough {
				continue
			}
			values, err := b.once(s, c)
			if err != nil {
				failures[s.name]++
				fmt.Printf("%-14s %-11s run %d: FAILED: %v\n", c, s.name, n+1, err)
			} else {
				fmt.Printf("%-14s %-11s run %d: %8.3f µs CPU  %8.0f echoes/s  p99 %.0f µs  server %.0f %%  generator idle %.0f %%\n",
					c, s.name, n+1, values[cpuPerEcho], values[echoesPerS], values[p99],
					100*values[serverBusy], 100*values[generatorIdle])
			}
			metrics := loadMetrics
			if c == connectionCase {
				metrics = append(slices.Clone(metrics), perConnection)
			}
			for _, m := range metrics {
				b.record(key{c.String(), s.name, m}, values[m], err)
			}
			for _, m := range []string{serverBusy, generatorIdle, generatorRan, lostShare} {
				if err == nil {
					k := key{c.String(), s.name, m}
					b.notes[k] = append(b.notes[k], values[m])
				}
			}
		}
	}
}

func (b *bench) record(k key, value float64, err error) {
	if err != nil {
		b.results.fail(k, err)
		return
	}
	b.results.add(k, value)
}

// once runs one server on one case.
func (b *bench) once(s server, c benchCase) (map[string]float64, error) {
	var idle memory
	if c == connectionCase {
		// The least server is the base, so that what is set aside for
		// connections before they come is counted too.
		p, _, err := b.startServer(s, c.network, 1, 1)
		if err != nil {
			return nil, err
		}
		idle, err = settled(p)
		p.stop()
		if err != nil {
			return nil, err
		}
	}
	p, ports, err := b.startServer(s, c.network, 1, c.clients)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	m := mix{bytes: c.bytes}
	if c.network == "udp" {
		m.udp, m.udpPort = c.clients, ports[0]
	} else {
		m.tcp, m.tcpPort = c.clients, ports[0]
	}
	l, generator, err := b.generate(p, m)
	if err != nil {
		return nil, p.complain(err)
	}
	defer generator.stop()
	now, err := readMemory(p.pid())
	if err != nil {
		return nil, p.complain(err)
	}
	values := l.metrics(c.network)
	values[rss] = float64(now.resident) / 1024
	values[serverBusy] = l.server.Seconds() / l.elapsed.Seconds()
	values[generatorIdle] = l.idle.Seconds() / l.elapsed.Seconds()
	values[generatorRan] = l.own.Seconds() / l.elapsed.Seconds()
	values[lostShare] = float64(l.lost) / float64(l.lost+l.echoes[c.network])
	if c == connectionCase {
		if now, err = settled(p); err != nil {
			return nil, err
		}
		values[perConnection] = float64(now.private-idle.private) / float64(c.clients)
	}
	return values, nil
}

// measureServices measures the memory of idle UDP services.
func (b *bench) measureServices() {
	for n := range b.runs {
		for _, s := range b.servers {
			if !s.many || b.ctx.Err() != nil {
				continue
			}
			k := key{memoryCase.String(), s.name, perService}
			each, count, err := b.eachService(s, 1)
			b.record(k, each, err)
			if err != nil {
				fmt.Printf("%d services %-11s run %d: FAILED: %v\n", many, s.name, n+1, err)
				continue
			}
			fmt.Printf("%d services %-11s run %d: %.0f bytes each, %d threads\n", many, s.name, n+1, each, count)
			k.metric = threads
			b.notes[k] = append(b.notes[k], float64(count))
			if s.name == ours {
				if each, _, err := b.eachService(s, many); err == nil {
					k.metric = perSlot
					b.notes[k] = append(b.notes[k], each)
				}
			}
		}
	}
}

// eachService returns the memory of one of many services, and the threads of
// their process.
func (b *bench) eachService(s server, group int) (each float64, threads int, err error) {
	const few = 2 // the same kind of server, without its weight
	base, err := b.idleServices(s, few, group)
	if err != nil {
		return 0, 0, err
	}
	full, err := b.idleServices(s, many, group)
	return float64(full.private-base.private) / (many - few), full.threads, err
}
