package harnesstest

import (
	"cmp"
	"fmt"
	"sync"
	"testing"

	"guesthouse.example/harness"
	"guesthouse.example/internal/board"
)

// templates returns the user's cache of templates.
var templates = sync.OnceValue(func() *harness.TemplateCache {
	prefetch, _ := switchValue(prefetchVariable, true) // readSettings has reported an error
	return &harness.TemplateCache{Prefetch: prefetch}
})

// requireFor is Require for the target of a Spec, or of its board.
func requireFor(t testing.TB, spec harness.Spec) {
	t.Helper()
	name := spec.Target
	if spec.Board != "" {
		b, err := board.Lookup(spec.Board)
		if err != nil {
			t.Fatal(err)
		}
		name = b.Target
	}
	Require(t, name)
}

// EndPrefetched ends the prefetched machines that no test has booted yet. They end with
// the test binary anyway. A TestMain that looks for processes or goroutines left behind
// calls EndPrefetched first.
func EndPrefetched() { templates().Close() }

// Boot boots a machine for the test and ends it when the test ends. The first machine of a
// kind is saved as a template when it is ready, and the next machines of that kind are
// restored from the template. A Spec without a From starts from the user's
// [harness.TemplateCache], or from [harness.Cold] if the environment variable GUESTHOUSE_COLD is 1
// (or true, yes, on).
//
// While a test runs, Boot restores the next machine of the same kind in the background if
// the host has memory for it. A test that boots that kind then has its machine within some
// tens of milliseconds. GUESTHOUSE_PREFETCH=0 (or false, no, off) switches the prefetching off.
//
// The test fails if the guest crashes. It also fails if the machine ends before the test
// calls Shutdown, Wait, WaitExit or Close. The machine ends when the guest's program ends.
// When the test ends, it fails if the console shows a data race, a sanitizer's report or
// another of [console.Console.Warnings].
func Boot(t testing.TB, spec harness.Spec) *Machine {
	t.Helper()
	if spec.QEMU == "" {
		requireFor(t, spec)
	}
	if spec.Dir == "" {
		spec.Dir = recordDir(t)
	}
	if cold := readSettings(t).cold; spec.From == nil {
		spec.From = templates()
		if cold {
			spec.From = harness.Cold
		}
	}
	spec.Test = t.Name()
	stop := beforeDeadline(t, func() {
		reportTimeout(t, fmt.Sprintf("the machine, %s, is being started; record: %s", cmp.Or(spec.Board, spec.Target), spec.Dir))
	})
	booted, err := harness.Start(t.Context(), spec)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	stop = beforeDeadline(t, func() { failByTimeout(t, booted) })
	if err := booted.WaitReady(t.Context()); err != nil {
		stop()
		booted.Close()
		t.Fatal(err)
	}
	m := &Machine{Machine: booted, t: t}
	t.Cleanup(func() {
		stop()
		m.finish()
	})
	return m
}
