package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/bench/internal/suite"
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

// cases returns all cases.
func (b *bench) cases() (all []suite.Case) {
	for _, c := range allCases() {
		all = append(all, suite.Case{Name: c.name, Harness: c.harness, Metrics: c.metrics, Run: func(ctx context.Context) (map[string]float64, error) {
			return c.run(b, ctx, c)
		}})
	}
	return all
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
	prepare := b.guests.Cold
	if c.restores {
		prepare = b.guests.Restored
	}
	spec, err := prepare(ctx, c.target)
	if err != nil {
		return nil, err
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
			m, err := echoguest.Boot(gctx, spec, c.network)
			started[i] = m
			return err
		})
	}
	err = g.Wait()
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
	spec, err := b.guests.Cold(ctx, c.target)
	if err != nil {
		return nil, err
	}
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
	m, err := echoguest.Boot(ctx, spec, c.network)
	if err != nil {
		return nil, err
	}
	took := time.Since(begin)
	defer m.Close()
	if r := m.Result(); r.Boot != harness.BootPrefetched {
		return nil, fmt.Errorf("the machine was %s and not prefetched: %s", r.Boot, r.Why)
	}
	return map[string]float64{ms: float64(took.Microseconds()) / 1000}, nil
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
