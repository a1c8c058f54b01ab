package contexts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/template"
)

// The states of a host in which a boot waits.
const (
	mute     = "QEMU does not answer"
	hangs    = "the kernel hangs"
	made     = "another process makes the template"
	restores = "a machine that is restored does not answer"
	noFile   = "a FIFO is in the place of a file"
)

// A host is what a boot uses.
type host struct {
	spec  harness.Spec
	cache *harness.TemplateCache
}

func closed(m *harness.Machine, err error) error {
	if err == nil {
		m.Close()
	}
	return err
}

var ofBoots = []row[host]{
	{name: "harness.Boot", call: func(ctx context.Context, h host) error { return closed(harness.Boot(ctx, h.spec)) }},
	{name: "harness.Start", call: func(ctx context.Context, h host) error { return closed(harness.Start(ctx, h.spec)) },
		atOnce: map[string]string{hangs: ""}},
	{name: "harness.Machine.WaitReady", call: func(ctx context.Context, h host) error {
		m, err := harness.Start(ctx, h.spec)
		if err == nil {
			defer m.Close()
			err = m.WaitReady(ctx)
		}
		return err
	}},
	{name: "harness.Boot from a cache", call: func(ctx context.Context, h host) error { return closed(harness.Boot(ctx, from(h.cache, h.spec))) }},
	{name: "harness.Start from a cache", call: func(ctx context.Context, h host) error { return closed(harness.Start(ctx, from(h.cache, h.spec))) },
		atOnce: map[string]string{hangs: ""}},
	{name: "harness.TemplateCache.Waiting", call: func(ctx context.Context, h host) error {
		_, err := h.cache.Waiting(ctx)
		return err
	}, atOnce: map[string]string{mute: "", hangs: "", made: "", noFile: ""}}, // nothing is prefetched in these states
	{name: "harness.TemplateCache.Expect", call: func(ctx context.Context, h host) error {
		c := &harness.TemplateCache{Dir: h.cache.Dir, AnyGuest: h.cache.AnyGuest, Prefetch: true}
		defer c.Close()
		c.Expect(ctx, h.spec)
		return nil
	}, atOnce: map[string]string{mute: "", hangs: "", made: "", restores: "", noFile: ""}}, // it waits for nothing
}

func tryBoots(t *testing.T, state string, h host, names ...string) {
	t.Helper()
	tried := 0
	for _, r := range ofBoots {
		for _, name := range names {
			if r.name == name {
				tried++
				t.Run(r.name, func(t *testing.T) { try(t, r, state, h) })
			}
		}
	}
	require.Equal(t, len(names), tried)
}

func TestABootEndsWithItsContextWhileQEMUDoesNotAnswer(t *testing.T) {
	spec := bareMetal(t, "no kernel here", "never said")
	spec.From, spec.QEMU = nil, qemu(t, t.TempDir(), "exec sleep 1000")
	tryBoots(t, mute, host{spec, &harness.TemplateCache{Dir: t.TempDir(), AnyGuest: true}},
		"harness.Boot", "harness.Start", "harness.Machine.WaitReady", "harness.Boot from a cache", "harness.Start from a cache",
		"harness.TemplateCache.Waiting", "harness.TemplateCache.Expect")
}

func TestABootEndsWithItsContextWhileTheKernelHangs(t *testing.T) {
	spec := bareMetal(t, "no kernel here", "never said")
	tryBoots(t, hangs, host{spec, &harness.TemplateCache{Dir: t.TempDir(), AnyGuest: true}},
		"harness.Boot", "harness.Start", "harness.Machine.WaitReady", "harness.Boot from a cache", "harness.Start from a cache",
		"harness.TemplateCache.Waiting", "harness.TemplateCache.Expect")
}

// The test holds the locks with other descriptions of the same files, as another process would.
func TestABootEndsWithItsContextWhileTheTemplateIsBeingMade(t *testing.T) {
	cache := &harness.TemplateCache{Dir: t.TempDir(), AnyGuest: true}
	spec := bareMetal(t, "no kernel here", "never said")
	spec.From = nil
	for _, file := range hold(t, filepath.Join(cache.Dir, "locks")) {
		defer file.Close()
	}
	tryBoots(t, made, host{spec, cache}, "harness.Boot from a cache", "harness.Start from a cache", "harness.TemplateCache.Waiting",
		"harness.TemplateCache.Expect")
}

// hold takes all locks of a template cache.
func hold(t *testing.T, dir string) (all []*flock.Flock) {
	t.Helper()
	const digits = "0123456789abcdef"
	require.NoError(t, os.MkdirAll(dir, 0o777))
	for _, a := range digits {
		for _, b := range digits {
			for _, layer := range []string{"b", "d"} { // see template.Cache.Build
				lock := flock.New(filepath.Join(dir, layer+string(a)+string(b)))
				ok, err := lock.TryLock()
				require.NoError(t, err)
				require.True(t, ok)
				all = append(all, lock)
			}
		}
	}
	return all
}

// QEMU waits for a saved state with -incoming, which a boot does not use.
func TestABootEndsWithItsContextWhileARestoreHangs(t *testing.T) {
	spec := echoSpec(t)
	spec.From, spec.Savable = nil, false
	spec.QEMU = qemu(t, t.TempDir(), `case "$*" in *-incoming*) exec sleep 1000;; esac`)
	cache := &harness.TemplateCache{Dir: t.TempDir(), Prefetch: true}
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, "the first boot of its kind, saved for the next", m.Result().Why)
	spec.Dir = t.TempDir()
	tryBoots(t, restores, host{spec, cache}, "harness.TemplateCache.Waiting") // a machine is being prefetched
	tryBoots(t, restores, host{spec, cache}, "harness.Boot from a cache")     // and the call waits for it
	tryBoots(t, restores, host{spec, cache}, "harness.TemplateCache.Expect")
	cache.Close()
	cache.Prefetch = false
	tryBoots(t, restores, host{spec, cache}, "harness.Boot from a cache", "harness.Start from a cache")

	saved, err := template.OpenCache(cache.Dir)
	require.NoError(t, err)
	all := slices.DeleteFunc(saved.List(), func(e template.Entry) bool { return e.Guest == "platform" })
	require.Len(t, all, 1)
	spec.From, err = harness.OpenTemplate(filepath.Join(cache.Dir, all[0].Key))
	require.NoError(t, err)
	tryBoots(t, restores, host{spec, cache}, "harness.Boot", "harness.Start", "harness.Machine.WaitReady",
		"harness.Boot from a cache", "harness.Start from a cache")
}

// Opening a FIFO waits for a writer. So the harness opens no FIFO in the place of a file.
func TestABootIsNotHeldUpByAFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o777))
	good := bareMetal(t, "no kernel here", "never said")
	for what, c := range map[string]struct {
		change func(*harness.Spec)
		says   string
	}{
		"kernel":    {func(s *harness.Spec) { s.Kernel = fifo }, "kernel " + fifo + ": not a regular file"},
		"initramfs": {func(s *harness.Spec) { s.Initramfs = fifo }, "initramfs " + fifo + ": not a regular file"},
		"QEMU":      {func(s *harness.Spec) { s.QEMU = fifo }, "permission denied"},
		"record":    {func(s *harness.Spec) { s.Dir = fifo }, "not a directory"},
		"a file of the record": {func(s *harness.Spec) {
			require.NoError(t, os.Symlink(fifo, filepath.Join(s.Dir, "spec.json")))
		}, "spec.json: not a regular file"},
	} {
		t.Run(what, func(t *testing.T) {
			h := host{good, &harness.TemplateCache{Dir: t.TempDir(), AnyGuest: true}}
			h.spec.From, h.spec.Dir = nil, t.TempDir()
			c.change(&h.spec)
			for _, r := range ofBoots {
				if r.name == "harness.TemplateCache.Waiting" {
					continue
				}
				if r.name != "harness.TemplateCache.Expect" { // it reports no error
					r.atOnce = map[string]string{noFile: c.says}
				}
				t.Run(r.name, func(t *testing.T) { try(t, r, noFile, h) })
			}
		})
	}
}
