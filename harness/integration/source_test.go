package integration

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/template"
)

// from returns the Spec of a machine that starts from a source.
func from(source harness.Source, spec harness.Spec) harness.Spec {
	spec.From = source
	return spec
}

// platforms is the directory of the caches of platformCache. TestMain removes it.
var platforms = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "platforms-") })

// platformsMade holds what makes each of those caches, once.
var platformsMade sync.Map // directory → func() error

// platformCache returns the directory of a cache that only has the template of the platform of a Spec, a copy of
// the user's. All tests with a Spec of that shape share the cache, and do not change it.
func platformCache(t *testing.T, spec harness.Spec) string {
	t.Helper()
	spec.Program, spec.Args, spec.Env, spec.Ready, spec.Ports = "", nil, nil, harness.PlatformReady, nil
	spec.Crashes, spec.Origin, spec.Dir, spec.From = nil, nil, "", nil
	spec = savable(spec)
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	parent, err := platforms()
	require.NoError(t, err)
	dir := filepath.Join(parent, fmt.Sprintf("%x", sha256.Sum256(text)))
	made, _ := platformsMade.LoadOrStore(dir, sync.OnceValue(func() error { return makePlatformCache(dir, spec) }))
	require.NoError(t, made.(func() error)())
	return dir
}

func makePlatformCache(dir string, spec harness.Spec) error {
	ctx := context.Background() // other tests use the cache too
	m, err := harness.Boot(ctx, from(new(harness.TemplateCache), spec))
	if err != nil {
		return err
	}
	defer m.Close()
	saved := filepath.Join(dir, "saved")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if _, err := m.Save(ctx, saved); err != nil {
		return err
	}
	files, err := template.Open(saved)
	if err != nil {
		return err
	}
	key, err := template.Key(files.Of, false) // by which the cache finds it
	if err != nil {
		return err
	}
	return os.Rename(saved, filepath.Join(dir, key))
}

// ownCache returns a cache for the test alone. It has the template of the Spec's platform, so the first machine of
// a program that is delivered boots no kernel.
func ownCache(t *testing.T, spec harness.Spec) *harness.TemplateCache {
	t.Helper()
	own := &harness.TemplateCache{Dir: t.TempDir()}
	if spec.Program != "" {
		shared := platformCache(t, spec)
		for _, e := range allTemplates(t, &harness.TemplateCache{Dir: shared}) {
			out, err := exec.Command("cp", "-r", "--sparse=always", filepath.Join(shared, e.Key), own.Dir).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}
	return own
}

// fresh starts a machine whose program starts now, and which can be saved. No more than its platform was saved
// before.
func fresh(t *testing.T, spec harness.Spec) *harnesstest.Machine {
	t.Helper()
	spec = savable(spec)
	spec.From = harness.Cold
	if spec.Program != "" {
		shared := platformCache(t, spec)
		all := allTemplates(t, &harness.TemplateCache{Dir: shared})
		require.Len(t, all, 1)
		platform, err := harness.OpenTemplate(filepath.Join(shared, all[0].Key))
		require.NoError(t, err)
		spec.From = platform
	}
	return harnesstest.Boot(t, spec)
}

// inEveryBootMode calls f with a machine of a Spec that booted, one that was prefetched, one that was
// restored, and one whose program was delivered into a restored platform, in this order.
func inEveryBootMode(t *testing.T, spec harness.Spec, f func(*harness.Machine)) {
	t.Helper()
	cache := &harness.TemplateCache{Dir: t.TempDir(), Prefetch: true}
	defer cache.Close()
	spec.Accel = harness.TCG // for waits too
	inBootMode(t, harness.BootCold, cache, spec, f)
	waits(t, cache, spec)
	inBootMode(t, harness.BootPrefetched, cache, spec, f)
	cache.Close()
	cache.Prefetch = false
	inBootMode(t, harness.BootRestored, cache, spec, f)
	if spec.Program != "" {
		spec.Env = append(spec.Env, "DELIVERED=1") // which makes it another kind
		inBootMode(t, harness.BootDelivered, cache, spec, f)
	}
}

// inTwoBootModes calls f with a machine of a Spec that booted, and one that was restored.
func inTwoBootModes(t *testing.T, spec harness.Spec, f func(*harness.Machine)) {
	t.Helper()
	cache := &harness.TemplateCache{Dir: t.TempDir()}
	inBootMode(t, harness.BootCold, cache, spec, f)
	inBootMode(t, harness.BootRestored, cache, spec, f)
}

func inBootMode(t *testing.T, mode harness.BootMode, cache *harness.TemplateCache, spec harness.Spec, f func(*harness.Machine)) {
	t.Helper()
	spec.Accel = harness.TCG // which templates require
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, mode, m.Result().Boot, m.Result().Why)
	f(m)
}
