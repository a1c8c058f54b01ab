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
	specs    []harness.Spec // one for each target
	boots    int
	machines int // concurrent
	load     int // busy processes
	seed     uint64
	hows     []how    // repeated in proportion to their share
	faults   []string // keys of checks, repeated in proportion to their share
	sizes
	boot      func(ctx context.Context, templates *harness.TemplateCache, j job, dir string) error
	templates *harness.TemplateCache // of this soak alone
	patience  time.Duration          // how long a leak may take to go away at the end
	records   string                 // the directory for the records of flakes
	log       io.Writer
}

// sizes are the parameters of the faults.
type sizes struct {
	floodLines int           // of floodLine bytes each
	killWithin time.Duration // after the machine's start, in its time
}

// A result is the content of soak.json.
type result struct {
	Boots    int `json:"boots"`    // completed boots
	Restored int `json:"restored"` // those of them that restored a template
	leaks
	Flakes      int            `json:"flakes"`
	Failures    []failure      `json:"failures,omitempty"` // one for each flake
	Faults      map[string]int `json:"faults"`             // the number of boots with each fault
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

// A job is one boot. Numbers start at 1.
type job struct {
	number int
	spec   harness.Spec
	how    how
	fault  string
	sizes
	rng *rand.Rand
}

// how is the way in which a machine becomes ready.
type how string

const (
	saved    how = "saved" // booted, and saved as the template of the restored machines
	cold     how = "cold"
	restored how = "restored"
)

// jobs returns the boots in order: first the template of each target, then rounds. A round has every
// target with every fault, cold and restored, in an order that the seed determines.
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

// run carries out all boots. Flakes and leaks are in the result; the error says why run could not do
// its work. When ctx ends, run ends early and does not count the boots that it interrupts.
func run(ctx context.Context, cfg config) (r result, err error) {
	start := time.Now()
	r = result{Faults: map[string]int{}, Seed: cfg.seed, Machines: cfg.machines, Load: cfg.load}
	fmt.Fprintf(cfg.log, "soak: %d boots, %d at once, %d busy processes, -seed %d\n",
		cfg.boots, cfg.machines, cfg.load, cfg.seed)

	// All temporary files go to a directory of this soak's own.
	dir, err := os.MkdirTemp("", "guesthouse-soak-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	tmp := []string{dir, filepath.Join(cfg.templates.Dir, "tmp")} // where unfinished templates are
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
		os.RemoveAll(dir) // the record of an earlier soak
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

	// The first boot creates what a process needs only once, such as the network poller. Anything
	// that there is more of after the last boot has leaked.
	all := jobs(cfg)
	do(all[0])
	base := measure(tmp, busy)
	templates := min(len(cfg.specs), len(all))
	inParallel(ctx, cfg.machines, all[1:templates], do)
	inParallel(ctx, cfg.machines, all[templates:], do) // the templates exist by now
	r.Interrupted = ctx.Err() != nil
	r.leaks = settled(base, tmp, busy, cfg.patience)
	os.Remove(cfg.records) // which fails unless it is empty
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// inParallel does the jobs, n at a time. It starts no more of them when ctx has ended.
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
