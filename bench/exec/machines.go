package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/harness"
	"guesthouse.example/images"
)

const (
	perSecond = "machines_per_s"
	cpu       = "cpu_ms" // processor time of a machine: of QEMU and of the harness
	megabytes = "mb_per_s"
)

// platformSpec returns a Spec that restores the platform from a template, which it saves at the first call.
func (b *bench) platformSpec(ctx context.Context, target string, memory int) (harness.Spec, error) {
	image, err := images.Platform(ctx, target, images.Options{Dir: b.source, Log: os.Stderr})
	if err != nil {
		return harness.Spec{}, err
	}
	spec := harness.Spec{Target: target, Kernel: image.Kernel, Initramfs: image.Initramfs, Ready: harness.PlatformReady, Memory: memory}
	return b.guests.Saved(ctx, spec, fmt.Sprintf("platform-%d-%s", memory, target))
}

// restore measures the time until a restored machine has answered.
func (b *bench) restore(ctx context.Context, target string) (map[string]float64, error) {
	spec, err := b.guests.Restored(ctx, target)
	if err != nil {
		return nil, err
	}
	return answer(ctx, spec)
}

// cold measures the time until a machine that boots has answered.
func (b *bench) cold(ctx context.Context, target string) (map[string]float64, error) {
	spec, err := b.guests.Cold(ctx, target)
	if err != nil {
		return nil, err
	}
	return answer(ctx, spec)
}

func answer(ctx context.Context, spec harness.Spec) (map[string]float64, error) {
	began := time.Now()
	m, err := echoguest.Boot(ctx, spec, "udp")
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	return milliseconds(took), m.Close()
}

// platform measures the time until a restored platform without a program is ready.
func (b *bench) platform(ctx context.Context, target string) (map[string]float64, error) {
	spec, err := b.platformSpec(ctx, target, 0)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	m, err := harness.Boot(ctx, spec)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	return milliseconds(took), m.Close()
}

// many restores n machines from one template, so many of them at once, and measures how many answer in a
// second. With fewer than n at once, each is closed after its answer.
func (b *bench) many(n, atOnce int) measurement {
	return func(ctx context.Context, target string) (map[string]float64, error) {
		spec, err := b.guests.Restored(ctx, target)
		if err != nil {
			return nil, err
		}
		return restoreMany(ctx, spec, n, atOnce)
	}
}

func restoreMany(ctx context.Context, spec harness.Spec, n, atOnce int) (map[string]float64, error) {
	before := processorTime()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	machines := make([]*harness.Machine, n)
	for i := range n {
		g.Go(func() error {
			m, err := echoguest.Boot(gctx, spec, "udp")
			if err == nil && atOnce < n {
				return m.Close()
			}
			machines[i] = m
			return err
		})
	}
	err := g.Wait()
	took := time.Since(began)
	for _, m := range machines {
		if m != nil {
			m.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		perSecond: float64(n) / took.Seconds(),
		cpu:       float64((processorTime() - before).Microseconds()) / 1000 / float64(n),
	}, nil
}

// processorTime returns the processor time of this process and of its children that have ended.
func processorTime() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// copyMemory is the memory of the machines that files are copied to, in MiB.
const copyMemory = 1024

// copies measures how fast a file of so many MiB is copied into the guest, or back.
func (b *bench) copies(mib int, in bool) measurement {
	return func(ctx context.Context, target string) (map[string]float64, error) {
		return b.copyFile(ctx, target, mib, in)
	}
}

func (b *bench) copyFile(ctx context.Context, target string, mib int, in bool) (map[string]float64, error) {
	spec, err := b.platformSpec(ctx, target, copyMemory)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.tmp, "copy-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	data := make([]byte, mib<<20)
	rand.Read(data)
	if err := os.WriteFile(file, data, 0o666); err != nil {
		return nil, err
	}
	m, err := harness.Boot(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	began := time.Now()
	if err := m.CopyIn(ctx, file, "/tmp/file"); err != nil {
		return nil, err
	}
	if !in {
		began = time.Now()
		if err := m.CopyOut(ctx, "/tmp/file", file+".back"); err != nil {
			return nil, err
		}
	}
	took := time.Since(began)
	found := milliseconds(took)
	found[megabytes] = float64(len(data)) / 1e6 / took.Seconds()
	return found, nil
}
