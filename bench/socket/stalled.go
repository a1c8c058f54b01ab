package main

import (
	"fmt"
	"slices"

	"guesthouse.example/bench/internal/results"
)

// besideStalled is the number of clients of each protocol beside the one that never reads.
const besideStalled = 16

// stalled holds the p99 latencies of our server in µs, by protocol: without and with a TCP client that
// sends and never reads.
type stalled struct {
	without, with map[string][]float64
	failed        error
}

// measureStalled runs UDP and TCP clients together on our server.
func (b *bench) measureStalled() stalled {
	s := stalled{without: map[string][]float64{}, with: map[string][]float64{}}
	if !slices.ContainsFunc(b.servers, func(s server) bool { return s.name == ours }) {
		return s
	}
	for range b.runs {
		for n, into := range []map[string][]float64{s.without, s.with} {
			if b.ctx.Err() != nil {
				return s
			}
			var l *load
			var err error
			b.repeat(func() (bool, error) {
				l, err = b.stall(n)
				return err == nil && l.ran() >= quiet, err
			})
			if err != nil {
				s.failed = err
				fmt.Println("client that never reads: FAILED:", err)
				return s
			}
			for network, latencies := range l.latencies {
				into[network] = append(into[network], quantile(latencies, 0.99)/1000)
			}
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		fmt.Printf("client that never reads: %s p99 %.0f µs without, %.0f µs with\n",
			network, results.Median(s.without[network]), results.Median(s.with[network]))
	}
	return s
}

func (b *bench) stall(clients int) (*load, error) {
	p, ports, err := b.startServer(servers[0], "tcp", 1, besideStalled+clients)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	l, generator, err := b.generate(p, mix{bytes: 64, window: 1, udp: besideStalled, tcp: besideStalled, stalled: clients,
		udpPort: ports[0], tcpPort: ports[0]})
	if err != nil {
		return nil, p.complain(err)
	}
	generator.stop()
	return l, nil
}
