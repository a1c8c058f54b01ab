package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/bench/internal/firstecho"
	"guesthouse.example/harness"
	"guesthouse.example/internal/sys"
)

// Metrics.
const (
	ms     = "ms"      // the time from asking for the machines until each has answered
	pssMiB = "pss_mib" // memory per machine; a shared page is divided by the number of its users
)

// A benchCase is one line of the tables. Its function run makes one measurement and returns the
// values of the metrics.
type benchCase struct {
	name, harness string
	target        string
	network       string
	machines      int
	restores      bool
	metrics       []string
	run           func(b *bench, ctx context.Context, c benchCase) (map[string]float64, error)
}

func allCases() (all []benchCase) {
	for _, tg := range targets {
		for _, network := range []string{"udp", "tcp"} {
			all = append(all,
				benchCase{name: "restore-" + network + "/" + tg, harness: ours, target: tg, network: network, machines: 1, restores: true, metrics: []string{ms}, run: (*bench).machines},
				benchCase{name: "cold-" + network + "/" + tg, harness: ours, target: tg, network: network, machines: 1, metrics: []string{ms}, run: (*bench).machines},
				benchCase{name: "cold-" + network + "/" + tg, harness: peer, target: tg, network: network, machines: 1, metrics: []string{ms}, run: (*bench).vmtest})
		}
	}
	for _, tg := range targets {
		all = append(all, benchCase{name: "prefetched-udp/" + tg, harness: ours, target: tg, network: "udp", machines: 1, metrics: []string{ms}, run: (*bench).prefetched})
	}
	for _, n := range counts {
		all = append(all, benchCase{
			name: "many/" + strconv.Itoa(n), harness: ours, target: manyTarget, network: "udp", machines: n,
			restores: true, metrics: []string{ms, pssMiB}, run: (*bench).machines,
		})
	}
	return all
}

// machines boots or restores all machines of the case at the same time, and measures the time until
// each has answered.
func (b *bench) machines(ctx context.Context, c benchCase) (map[string]float64, error) {
	spec := b.specs[c.target]
	spec.From = harness.Cold
	if c.restores {
		spec.From = b.templates[c.target]
	}
	started := make([]*harness.Machine, c.machines)
	defer func() {
		for _, m := range started {
			if m != nil {
				m.Close()
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for i := range started {
		g.Go(func() error {
			m, err := harness.Boot(gctx, spec)
			if err != nil {
				return err
			}
			started[i] = m
			if r := m.Result(); c.restores && r.Boot != harness.BootRestored {
				return fmt.Errorf("the machine was booted and not restored: %s", r.Why)
			}
			return firstEcho(gctx, m, c.network)
		})
	}
	err := g.Wait()
	took := time.Since(begin)
	if err != nil {
		return nil, err
	}
	memory, err := memoryOf(started)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		ms:     float64(took.Microseconds()) / 1000,
		pssMiB: memory / float64(c.machines),
	}, nil
}

// prefetched takes a machine out of the warm pool, and measures the time until it has answered.
func (b *bench) prefetched(ctx context.Context, c benchCase) (map[string]float64, error) {
	cache := &harness.TemplateCache{Dir: filepath.Join(b.tmp, "cache"), Prefetch: true}
	defer cache.Close()
	spec := b.specs[c.target]
	spec.Accel, spec.From = harness.TCG, cache
	before, err := harness.Boot(ctx, spec)
	if err != nil {
		return nil, err
	}
	before.Close()
	if n, err := cache.Waiting(ctx); n == 0 {
		return nil, errors.Join(errors.New("no machine was prefetched: a quarter of the host's memory must be free"), err)
	}
	begin := time.Now()
	m, err := harness.Boot(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if r := m.Result(); r.Boot != harness.BootPrefetched {
		return nil, fmt.Errorf("the machine was %s and not prefetched: %s", r.Boot, r.Why)
	}
	if err := firstEcho(ctx, m, c.network); err != nil {
		return nil, err
	}
	return map[string]float64{ms: float64(time.Since(begin).Microseconds()) / 1000}, nil
}

// firstEcho connects to a machine and waits for its first answer.
func firstEcho(ctx context.Context, m *harness.Machine, network string) error {
	conn, err := m.Dial(ctx, network, echoPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return firstecho.Wait(ctx, conn)
}

// memoryOf returns the memory of the machines' QEMUs in MiB.
func memoryOf(machines []*harness.Machine) (sum float64, err error) {
	for _, m := range machines {
		qemu, err := sys.MemoryOf(m.Result().PID)
		if err != nil {
			return 0, fmt.Errorf("memory of QEMU: %w", err)
		}
		sum += float64(qemu.Proportional) / (1 << 20)
	}
	return sum, nil
}
