package integration

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
)

// from returns the Spec of a machine that starts from a source.
func from(source harness.Source, spec harness.Spec) harness.Spec {
	spec.From = source
	return spec
}

// inEveryBootMode calls f with a machine of a Spec that booted, one that was prefetched, one that was
// restored, and one whose program was delivered into a restored platform, in this order.
func inEveryBootMode(t *testing.T, spec harness.Spec, f func(*harness.Machine)) {
	t.Helper()
	spec.Accel = harness.TCG // which templates require
	cache := &harness.TemplateCache{Dir: t.TempDir(), Prefetch: true}
	defer cache.Close()
	try := func(mode harness.BootMode) {
		t.Helper()
		m, err := harness.Boot(t.Context(), from(cache, spec))
		require.NoError(t, err)
		defer m.Close()
		require.Equal(t, mode, m.Result().Boot, m.Result().Why)
		f(m)
	}
	try(harness.BootCold)
	waits(t, cache, spec)
	try(harness.BootPrefetched)
	cache.Close()
	cache.Prefetch = false
	try(harness.BootRestored)
	if spec.Program != "" {
		spec.Env = append(spec.Env, "DELIVERED=1") // which makes it another kind
		try(harness.BootDelivered)
	}
}
