package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// TestMain makes the test binary a busy process if the environment says so, like the program.
func TestMain(m *testing.M) {
	if os.Getenv(busyVariable) != "" {
		compute()
	}
	os.Exit(m.Run())
}

func TestLeaksAreCounted(t *testing.T) {
	dir := t.TempDir()
	tmp := []string{dir, filepath.Join(dir, "not there")}
	base := measure(tmp, nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "left"), nil, 0o600))
	const many = 10 // more than earlier tests can release meanwhile
	hold := make(chan struct{})
	defer close(hold)
	for range many {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		defer w.Close()
		go func() { <-hold }()
	}
	load, err := startBusy(1)
	defer load.stop()
	require.NoError(t, err)

	now := measure(tmp, nil)
	require.Equal(t, base.Processes+1, now.Processes)
	require.Equal(t, base.Processes, measure(tmp, load).Processes, "the load is no leak")
	require.Greater(t, now.FDs, base.FDs+many)
	require.Equal(t, 1, now.Files)
	require.Greater(t, now.Goroutines, base.Goroutines+many/2)
	require.True(t, leaks{FDs: 1}.any())
	require.True(t, leaks{RSS: maxGrowth + 1}.any())
	require.False(t, leaks{RSS: maxGrowth}.any())
}

// A short soak has every fault once and one cold boot. A flood includes the checks of a plain boot.
func TestAShortSoak(t *testing.T) {
	const target = "arm64" // make soak uses every target
	harnesstest.Require(t, target)
	cfg := config{
		specs: []harness.Spec{harnesstest.Spec(t, target, echoGuest)},
		hows:  []how{restored}, faults: []string{"kill", "link", "flood"}, boots: 4, machines: 2, load: 1, seed: 1,
		sizes: sizes{floodLines: 16, killWithin: time.Second}, boot: boot, patience: 20 * time.Second,
		templates: &harness.TemplateCache{Dir: t.TempDir()}, records: filepath.Join(t.TempDir(), "soak"), log: t.Output(),
	}
	r, err := run(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"plain": 1, "kill": 1, "link": 1, "flood": 1}, r.Faults)
	require.Equal(t, 3, r.Restored)
	require.False(t, r.bad(), "%+v", r)
	require.NoDirExists(t, cfg.records)
}

func TestASoakCountsFlakesAndLeaks(t *testing.T) {
	var left busy
	var file *os.File
	defer func() {
		left.stop()
		file.Close()
	}()
	cfg := config{specs: []harness.Spec{{Target: "none"}}, faults: []string{"plain"}, hows: []how{cold, restored}, boots: 5, machines: 1, seed: 1,
		templates: &harness.TemplateCache{Dir: t.TempDir()}, records: t.TempDir(), log: t.Output()}
	cfg.boot = func(_ context.Context, templates *harness.TemplateCache, j job, _ string) (err error) {
		switch j.number {
		case 2:
			left, err = startBusy(1)
		case 3:
			file, err = os.CreateTemp("", "left-")
		case 4:
			err = os.MkdirAll(filepath.Join(templates.Dir, "tmp", "half-made"), 0o700)
		case 5:
			err = errors.New("it did not answer")
		}
		return err
	}
	r, err := run(t.Context(), cfg)
	require.NoError(t, err)
	require.True(t, r.bad())
	require.Equal(t, 5, r.Boots)
	require.Equal(t, 2, r.Restored)
	require.Equal(t, 1, r.Flakes)
	require.Equal(t, "it did not answer", r.Failures[0].Reason)
	require.Equal(t, 1, r.Processes)
	require.Positive(t, r.FDs)
	require.Equal(t, 2, r.Files)
}

func TestNoMachineIsRestoredBeforeAllTemplatesAreMade(t *testing.T) {
	const targets, boots = 4, 12
	var begun, made atomic.Int32
	arrived := make(chan struct{})
	cfg := config{specs: make([]harness.Spec, targets), faults: []string{"plain"}, hows: []how{restored}, boots: boots, machines: targets,
		templates: &harness.TemplateCache{Dir: t.TempDir()}, records: t.TempDir(), log: t.Output()}
	cfg.boot = func(_ context.Context, _ *harness.TemplateCache, j job, _ string) error {
		if j.how == restored {
			if n := made.Load(); n != targets {
				return fmt.Errorf("after %d of %d templates", n, targets)
			}
			return nil
		}
		// The first template is made alone, the others concurrently.
		if begun.Add(1) == targets {
			close(arrived)
		}
		if j.number > 1 {
			<-arrived
		}
		made.Add(1)
		return nil
	}
	r, err := run(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, boots, r.Boots)
	require.Empty(t, r.Failures)
}

func TestAFloodWithAMissingLineFails(t *testing.T) {
	const lines = 5
	log := filepath.Join(t.TempDir(), "console.log")
	filler := strings.Repeat(floodWord, floodLine/len(floodWord))
	write := func(change func(i int, line string) string) error {
		text := "[   1.000000] sh b=" + floodWord + "; echo $i $b\n"
		for i := range lines {
			text += "[   1.000000] " + change(i, fmt.Sprintf("%d %s\n", i+1, filler))
		}
		require.NoError(t, os.WriteFile(log, []byte(text), 0o600))
		return flooded(log, lines)
	}
	require.NoError(t, write(func(_ int, line string) string { return line }))
	require.ErrorContains(t, write(func(i int, line string) string {
		if i == 2 {
			return line[:1000] + line[1001:]
		}
		return line
	}), "console.log has 2 of 5 lines of the flood, and then 4112 bytes")
	require.ErrorContains(t, write(func(i int, line string) string {
		if i == 2 {
			return line + line
		}
		return line
	}), "console.log has 3 of 5 lines of the flood, and then")
	require.ErrorContains(t, write(func(i int, line string) string {
		if i == lines-1 {
			return "\n"
		}
		return line
	}), "console.log has 4 of 5 lines of the flood")
}

func TestEveryUsualFaultHasACheck(t *testing.T) {
	seen := map[string]bool{}
	for _, fault := range strings.Split(usual, ",") {
		require.Contains(t, checks, fault)
		seen[fault] = true
	}
	require.Len(t, seen, len(checks))
}

func TestHalfOfTheJobsRestoreAMachine(t *testing.T) {
	cfg := config{specs: make([]harness.Spec, 4), hows: []how{cold, restored}, faults: strings.Split(usual, ","), boots: 200, seed: 7}
	all := jobs(cfg)
	require.Equal(t, all, jobs(cfg), "the same seed")
	count := map[how]int{}
	for i, j := range all {
		require.Equal(t, i+1, j.number)
		require.Equal(t, i < len(cfg.specs), j.how == saved, "templates come first")
		count[j.how]++
	}
	require.InDelta(t, count[cold], count[restored], 36) // chance decides in the last round
	require.Len(t, jobs(config{specs: cfg.specs, boots: 3}), 3)
}
