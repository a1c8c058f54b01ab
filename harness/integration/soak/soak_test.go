package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the load, as the program is.
func TestMain(m *testing.M) {
	if os.Getenv(busyVariable) != "" {
		compute()
	}
	os.Exit(m.Run())
}

func TestWhatIsLeftBehindIsCounted(t *testing.T) {
	tmp := t.TempDir()
	base := measure(tmp, nil)
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "left"), nil, 0o600))
	const many = 10 // more than what an earlier test let go of can hide
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
	require.True(t, leaks{RSS: rssMost + 1}.any())
	require.False(t, leaks{RSS: rssMost}.any())
}
