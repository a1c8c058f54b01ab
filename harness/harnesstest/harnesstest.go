// Package harnesstest boots machines for tests, as httptest starts servers for
// them. It builds a guest program into a bootable image, boots the image for
// one test, and fails that test with the last lines of the console.
//
//	func TestUpper(t *testing.T) {
//		harnesstest.EachTarget(t, func(t *testing.T, target string) {
//			spec := harnesstest.Spec(t, target, "./cmd/upper")
//			spec.Ports = []string{"udp/4242"}
//			m := harnesstest.Boot(t, spec)
//			conn := m.Dial("udp", 4242)
//			...
//		})
//	}
//
// A method of [Machine] takes no context and fails the test if it fails. A method
// of [harness.Machine] takes a context and returns an error.
//
// A test is skipped on a target whose QEMU is not installed. If the environment
// variable GUESTHOUSE_REQUIRE, a list such as "x86_64,arm64", names the target,
// the test fails instead.
//
// The record of a failed test is kept in the system's temporary directory. The
// record of a test that was killed stays there until the test runs again. With
// the flag -artifacts of go test, the record of every machine is kept in the
// test's artifact directory.
//
// The go command may answer from its cache of test results (package list mode).
// It runs the test again after a change of the guest's sources, of the packages
// and files that they import and embed, of the kernel, of QEMU or of the
// environment. With -count=1, go test always runs the test.
//
// In a test with coverage, guests are built with coverage too, and what ran in
// them is in the test's profile. The go command counts the packages that are named
// or imported, so name the guest's: go test -coverpkg=./... ./... The environment
// variable GUESTHOUSE_COVERPKG names other packages than the guest's main module.
package harnesstest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/limiter"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// Within bounds every wait of a [Machine]'s own methods, in the machine's time; see
// [harness.Machine.Within].
const Within = 30 * time.Second

// EachTarget runs f as one subtest for every target, several at a time, and returns when
// all subtests have ended. It measures the host's free memory and idle processors, and starts
// as many subtests at once as they can run. A subtest's duration does not include the time
// before its start. Call t.Parallel first to run the targets of several tests side by side.
//
// The environment variable GUESTHOUSE_TARGETS, a list such as "arm,arm64", selects the
// targets.
func EachTarget(t *testing.T, f func(t *testing.T, target string)) {
	t.Helper()
	names := readSettings(t).targets
	if names == nil {
		names = target.Names()
	}
	var subtests sync.WaitGroup
	defer subtests.Wait()
	for _, name := range names {
		subtests.Go(func() {
			_ = running.Acquire(context.Background()) // It fails only when its context ends.
			defer running.Release()
			t.Run(name, func(t *testing.T) {
				Require(t, name)
				f(t, name)
			})
		})
	}
}

// running limits how many subtests of EachTarget run at once.
var running = limiter.New(EndPrefetched)

// Require skips the test if the target's QEMU is not installed. If GUESTHOUSE_REQUIRE
// names the target, Require fails the test instead.
func Require(t testing.TB, name string) {
	t.Helper()
	tg, err := target.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	required := readSettings(t).required
	if _, err := testcache.LookPath(tg.QEMU); err != nil {
		missing := &harness.MissingQEMUError{Binary: tg.QEMU, Package: tg.QEMUPackage, Err: err}
		if slices.Contains(required, name) {
			t.Fatalf("%s has %s: %v", requireVariable, name, missing)
		}
		t.Skip(missing)
	}
}
