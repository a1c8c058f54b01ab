package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The notes stand beside the metrics and show which side was the limit.
const (
	generatorIdle = "generator_idle"
	lostShare     = "lost"
	generatorRan  = "generator_ran" // the share of its core
	threads       = "threads"
	perSlot       = "bytes_per_slot" // of one service with all sockets
)

// measure runs all servers on a case, one after the other, and repeats that as often as the plan says.
// So a disturbance of the host affects all of them.
func (b *bench) measure(c benchCase) {
	const enough = 2 // failures, because a server that fails takes long
	failures := map[string]int{}
	sleepers := map[string]bool{} // servers that could not be saturated
	for n := range b.runs {
		for _, s := range b.servers {
			if !s.speaks(c.protocol()) || b.ctx.Err() != nil || failures[s.name] == enough {
				continue
			}
			var values map[string]float64
			var err error
			slept := false
			b.repeat(func() (bool, error) {
				values, err = b.once(s, c)
				slept = c.saturates() && values[serverBusy] < 100*saturated
				return values[generatorRan] >= quiet && (!slept || sleepers[s.name]), err
			})
			sleepers[s.name] = err == nil && slept
			if err != nil {
				failures[s.name]++
				fmt.Printf("%-14s %-11s run %d: FAILED: %v\n", c, s.name, n+1, err)
			} else {
				fmt.Printf("%-14s %-11s run %d: %8.3f µs CPU  %8.0f echoes/s  p99 %.0f µs  server %.0f %%  generator idle %.0f %%\n",
					c, s.name, n+1, values[cpuPerEcho], values[echoesPerS], values[p99],
					values[serverBusy], 100*values[generatorIdle])
			}
			metrics := loadMetrics
			if c == connectionCase {
				metrics = append(slices.Clone(metrics), perConnection)
			}
			for _, m := range metrics {
				b.record(key{c.String(), s.name, m}, values[m], err)
			}
			for _, m := range []string{generatorIdle, generatorRan, lostShare} {
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
		b.results.Fail(k, err)
		return
	}
	b.results.Add(k, value)
}

// repeat repeats a run that was not fit, as long as there is time to spare. A run is fit if nothing
// else ran on the generator's core and the server did not sleep, or had slept in the previous run too.
// Only these shares of the cores decide, never the result.
func (b *bench) repeat(run func() (fit bool, err error)) {
	const tries = 3
	for range tries {
		begin := time.Now()
		fit, err := run()
		if fit && err == nil || err != nil && !errors.Is(err, errDisturbed) || b.spare <= 0 {
			return
		}
		b.spare -= time.Since(begin)
	}
}

// once runs one server on one case.
func (b *bench) once(s server, c benchCase) (map[string]float64, error) {
	var idle memory
	if c == connectionCase {
		// Subtract the memory of a server for one connection, so that memory
		// which a server allocates in advance for its connections counts too.
		p, _, err := b.startServer(s, c.protocol(), 1, 1)
		if err != nil {
			return nil, err
		}
		idle, err = settled(p)
		p.stop()
		if err != nil {
			return nil, err
		}
	}
	p, ports, err := b.startServer(s, c.protocol(), 1, c.clients)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	m := mix{bytes: c.bytes, window: c.window()}
	if c.protocol() == "udp" {
		m.udp, m.udpPort = c.clients, ports[0]
	} else {
		m.tcp, m.tcpPort = c.clients, ports[0]
	}
	l, generator, err := b.generate(p, m)
	if err != nil {
		return nil, p.complain(err)
	}
	defer generator.stop()
	b.noRing = b.noRing || m.tcp > 0 && !l.ring
	now, err := readMemory(p.pid())
	if err != nil {
		return nil, p.complain(err)
	}
	values := l.metrics(c.protocol())
	values[rss] = float64(now.resident) / 1024
	values[generatorIdle] = l.idle.Seconds() / l.elapsed.Seconds()
	values[generatorRan] = l.ran()
	values[lostShare] = float64(l.lost) / float64(l.lost+l.echoes[c.protocol()])
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

// eachService returns the memory of one of many services in bytes, and the number
// of threads of their process.
func (b *bench) eachService(s server, group int) (each float64, threads int, err error) {
	const few = 2 // services of the server whose memory is subtracted
	base, err := b.idleServices(s, few, group)
	if err != nil {
		return 0, 0, err
	}
	full, err := b.idleServices(s, many, group)
	return float64(full.private-base.private) / (many - few), full.threads, err
}
