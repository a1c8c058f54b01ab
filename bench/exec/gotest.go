package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ms is the metric of the cases that measure a time, in milliseconds.
const ms = "ms"

func milliseconds(d time.Duration) map[string]float64 {
	return map[string]float64{ms: float64(d.Microseconds()) / 1000}
}

// emptyTest measures what go test takes for empty tests that run in a machine, beyond the same command
// with tests that do not run at all.
func (b *bench) emptyTest(ctx context.Context, target, pattern string, options ...string) (map[string]float64, error) {
	dir, err := b.emptyModule()
	if err != nil {
		return nil, err
	}
	test := func(runner string) (time.Duration, error) {
		return b.goIn(ctx, dir, architecture(target), "test", "-count=1", "-p", fmt.Sprint(packages), "-exec", runner, pattern)
	}
	if _, err := test("true"); err != nil { // compiles
		return nil, err
	}
	without, err := test("true")
	if err != nil {
		return nil, err
	}
	with, err := test(strings.Join(append([]string{b.cli, "exec"}, options...), " "))
	if err != nil {
		return nil, err
	}
	return milliseconds(with - without), nil
}

func (b *bench) oneTest(ctx context.Context, target string) (map[string]float64, error) {
	return b.emptyTest(ctx, target, "./p0")
}

// allTests is emptyTest of several packages at once.
func (b *bench) allTests(ctx context.Context, target string) (map[string]float64, error) {
	return b.emptyTest(ctx, target, "./...")
}

// firstTest is oneTest without a template of the platform.
func (b *bench) firstTest(ctx context.Context, target string) (map[string]float64, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	// The caches of the user hold the images. Only the templates are missing.
	empty, err := os.MkdirTemp(b.tmp, "cache-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(empty)
	if err := os.Mkdir(filepath.Join(empty, "guesthouse"), 0o777); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(cache, "guesthouse"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != "templates" {
			if err := os.Symlink(filepath.Join(cache, "guesthouse", e.Name()), filepath.Join(empty, "guesthouse", e.Name())); err != nil {
				return nil, err
			}
		}
	}
	first := *b
	first.env = append(first.env, "XDG_CACHE_HOME="+empty, "GOCACHE="+filepath.Join(cache, "go-build"))
	return first.oneTest(ctx, target)
}

// edits counts the edits of the guest, so that no two are the same.
var edits int

// edit changes a constant of the README's guest.
func (b *bench) edit(dir string) error {
	text, err := os.ReadFile(filepath.Join(b.source, "harness/harnesstest/example", guestFile))
	if err != nil {
		return err
	}
	edits++
	changed := strings.Replace(string(text), "1500", fmt.Sprint(1500+edits), 1)
	if changed == string(text) {
		return fmt.Errorf("%s has no constant 1500", guestFile)
	}
	return os.WriteFile(filepath.Join(dir, guestFile), []byte(changed), 0o666)
}

// beyondGoTest is the time of an edit beyond go build of the guest and beyond the go command itself, which
// links the test and looks at all its packages before it runs.
const beyondGoTest = "beyond_go_test_ms"

// editToResult measures go test of the README's example after an edit of its guest, beyond go build of the
// guest, and beyond that and go test without a test to run.
func (b *bench) editToResult(ctx context.Context, target string) (map[string]float64, error) {
	dir, err := b.exampleModule(ctx)
	if err != nil {
		return nil, err
	}
	// The platform is there, and the test is compiled.
	if _, err := b.testExample(ctx, dir, target); err != nil {
		return nil, err
	}
	if err := b.edit(dir); err != nil {
		return nil, err
	}
	build, err := b.goIn(ctx, dir, architecture(target), "build", "-o", os.DevNull, "./cmd/upper")
	if err != nil {
		return nil, err
	}
	if err := b.edit(dir); err != nil {
		return nil, err
	}
	test, err := b.testExample(ctx, dir, target)
	if err != nil {
		return nil, err
	}
	without, err := b.testExample(ctx, dir, target, "-run", "^$")
	if err != nil {
		return nil, err
	}
	found := milliseconds(test - build)
	found[beyondGoTest] = milliseconds(test - build - without)[ms]
	return found, nil
}

// unedited measures go test of the README's example again.
func (b *bench) unedited(ctx context.Context, target string) (map[string]float64, error) {
	dir, err := b.exampleModule(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := b.testExample(ctx, dir, target); err != nil {
		return nil, err
	}
	took, err := b.testExample(ctx, dir, target)
	return milliseconds(took), err
}

func (b *bench) testExample(ctx context.Context, dir, target string, options ...string) (time.Duration, error) {
	args := append(append([]string{"test", "-count=1"}, options...), ".")
	return b.goIn(ctx, dir, []string{"GUESTHOUSE_TARGETS=" + target, "GUESTHOUSE_REQUIRE=" + target}, args...)
}
