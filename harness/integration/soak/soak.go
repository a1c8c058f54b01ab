package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/harness"
)

type config struct {
	specs    []harness.Spec // one a target
	boots    int
	machines int // at once
	load     int // busy processes
	seed     uint64
	hows     []how    // in the share that they are to have
	faults   []string // so too; keys of checks
	sizes
	boot      func(ctx context.Context, templates *harness.TemplateCache, j job, dir string) error
	templates *harness.TemplateCache // of this soak alone
	patience  time.Duration          // with what is still there at the end
	records   string                 // the directory where those of flakes are kept
	log       io.Writer
}

// sizes are those of the faults.
type sizes struct {
	floodLines int           // of floodLine bytes each, and their numbers
	killWithin time.Duration // of the machine's start, in its time
}

// A result is the content of soak.json.
type result struct {
	Boots    int `json:"boots"`    // that were carried out
	Restored int `json:"restored"` // of these, from templates
	leaks
	Flakes      int            `json:"flakes"`
	Failures    []failure      `json:"failures,omitempty"` // one a flake
	Faults      map[string]int `json:"faults"`             // how many boots had which
	Seed        uint64         `json:"seed"`
	Machines    int            `json:"machines"`
	Load        int            `json:"load"`
	Seconds     float64        `json:"seconds"`
	Interrupted bool           `json:"interrupted,omitempty"`
}

type failure struct {
	Boot   int    `json:"boot"`
	Target string `json:"target"`
	How    how    `json:"how"`
	Fault  string `json:"fault"`
	Reason string `json:"reason"`
	Record string `json:"record"`
}

func (r result) bad() bool { return r.Flakes > 0 || r.leaks.any() }

// A job is one boot: its number counts from 1.
type job struct {
	number int
	spec   harness.Spec
	how    how
	fault  string
	sizes
	rng *rand.Rand
}

// how a machine comes to be ready.
type how string

const (
	saved    how = "saved" // it boots, and is the template of those that are restored
	cold     how = "cold"
	restored how = "restored"
)

// jobs returns the boots in their order: each target's template, and then rounds, each of
// which has each target with each fault, cold and restored, shuffled by the seed.
func jobs(cfg config) (all []job) {
	for _, spec := range cfg.specs {
		all = append(all, job{spec: spec, how: saved, fault: "plain"})
	}
	rng := rand.New(rand.NewPCG(cfg.seed, 0))
	for len(all) < cfg.boots {
		var round []job
		for _, spec := range cfg.specs {
			for _, how := range cfg.hows {
				for _, fault := range cfg.faults {
					round = append(round, job{spec: spec, how: how, fault: fault})
				}
			}
		}
		rng.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		all = append(all, round...)
	}
	all = all[:cfg.boots]
	for i := range all {
		all[i].number, all[i].sizes = i+1, cfg.sizes
		all[i].rng = rand.New(rand.NewPCG(cfg.seed, uint64(i+1)))
	}
	return all
}

// run carries out all boots. Its error says that it could not; flakes and leaks
// are in the result. When ctx ends it ends early, and what it interrupts is no
// boot.
func run(ctx context.Context, cfg config) (r result, err error) {
	start := time.Now()
	r = result{Faults: map[string]int{}, Seed: cfg.seed, Machines: cfg.machines, Load: cfg.load}
	fmt.Fprintf(cfg.log, "soak: %d boots, %d at once, %d busy processes, -seed %d\n",
		cfg.boots, cfg.machines, cfg.load, cfg.seed)

	// Everything temporary goes where nobody else's files are.
	dir, err := os.MkdirTemp("", "guesthouse-soak-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	tmp := []string{dir, filepath.Join(cfg.templates.Dir, "tmp")} // where templates are made
	before, had := os.LookupEnv("TMPDIR")
	os.Setenv("TMPDIR", dir)
	defer func() {
		if os.Unsetenv("TMPDIR"); had {
			os.Setenv("TMPDIR", before)
		}
	}()
	busy, err := startBusy(cfg.load)
	defer busy.stop()
	if err != nil {
		return r, fmt.Errorf("start a busy process: %w", err)
	}

	var mu sync.Mutex
	do := func(j job) {
		dir := filepath.Join(cfg.records, fmt.Sprintf("%d-%s-%s-%s", j.number, j.spec.Target, j.how, j.fault))
		os.RemoveAll(dir) // that of an earlier soak
		began := time.Now()
		err := cfg.boot(ctx, cfg.templates, j, dir)
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			os.RemoveAll(dir)
			return
		}
		r.Boots++
		r.Faults[j.fault]++
		if j.how == restored {
			r.Restored++
		}
		said := "as expected"
		if err != nil {
			r.Flakes++
			said = fmt.Sprintf("FLAKE: %v (record: %s)", err, dir)
			r.Failures = append(r.Failures, failure{j.number, j.spec.Target, j.how, j.fault, err.Error(), dir})
		} else if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(cfg.log, "soak: remove the record:", err)
		}
		fmt.Fprintf(cfg.log, "%d of %d: %d %s %s %s: %s in %.1f s\n",
			r.Boots, cfg.boots, j.number, j.spec.Target, j.how, j.fault, said, time.Since(began).Seconds())
	}

	// The first boot makes what a process needs only once, such as its
	// network poller. What there is more of after the last boot is leaked.
	all := jobs(cfg)
	do(all[0])
	base := measure(tmp, busy)
	templates := min(len(cfg.specs), len(all))
	inParallel(ctx, cfg.machines, all[1:templates], do)
	inParallel(ctx, cfg.machines, all[templates:], do) // now that there is what they are restored from
	r.Interrupted = ctx.Err() != nil
	r.leaks = settled(base, tmp, busy, cfg.patience)
	os.Remove(cfg.records) // if it is empty
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// inParallel does all jobs, n at once, or those that have begun when ctx ends.
func inParallel(ctx context.Context, n int, jobs []job, do func(job)) {
	var workers errgroup.Group
	workers.SetLimit(n)
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() error {
			do(j)
			return nil
		})
	}
	workers.Wait()
}
