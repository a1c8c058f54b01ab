package kvm

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/qemu"
)

// The integration tests run the check on real QEMU.
func TestTheCheckSaysWhatFailed(t *testing.T) {
	m, _ := fakeQEMU(t, boots)
	err := saveAndRestore(t.Context(), m, 300*time.Millisecond)
	require.ErrorContains(t, err, "saving a machine: ")
	require.ErrorContains(t, err, "it has not happened within 0.30 s")

	m, _ = fakeQEMUs(t, "exit 1", "exit 1")
	require.ErrorContains(t, saveAndRestore(t.Context(), m, time.Minute), "saving a machine: ")
}

func TestTheVerdictHoldsWhetherAMachineWasRestored(t *testing.T) {
	for name, c := range map[string]struct {
		restore func(context.Context, qemu.Machine, time.Duration) error
		says    string
	}{
		"it was": {func(context.Context, qemu.Machine, time.Duration) error { return nil }, ""},
		"it was not": {func(context.Context, qemu.Machine, time.Duration) error {
			return errors.New("restoring a\nmachine: no MSR")
		}, "restoring a machine: no MSR"},
		"not tried": {nil, "it was not tried"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			p := newProber(cache)
			tries := 0
			if c.restore != nil {
				p.Restore = func(ctx context.Context, m qemu.Machine, within time.Duration) error {
					tries++
					require.True(t, m.KVM, "under the acceleration that is probed")
					require.Equal(t, p.Within, within)
					return c.restore(ctx, m, within)
				}
			}
			m, _ := fakeQEMU(t, boots)
			require.ErrorContains(t, p.Restores(m), "KVM has not booted the kernel")
			_, err := p.Probe(t.Context(), m, false)
			require.NoError(t, err)
			later := newProber(cache) // another process
			_, err = later.Probe(t.Context(), m, false)
			require.NoError(t, err)
			for _, p := range []*Prober{p, later} {
				if c.says == "" {
					require.NoError(t, p.Restores(m))
				} else {
					require.EqualError(t, p.Restores(m), c.says)
				}
			}
			require.LessOrEqual(t, tries, 1, "once on this host and boot")
		})
	}
}

func TestAKVMThatBootsNothingIsNotAskedToRestore(t *testing.T) {
	p := newProber(t.TempDir())
	p.Restore = func(context.Context, qemu.Machine, time.Duration) error {
		t.Error("it was asked")
		return nil
	}
	m, _ := fakeQEMU(t, "exit 1")
	_, err := p.Probe(t.Context(), m, false)
	require.Error(t, err)
	require.Error(t, p.Restores(m))
}

// The end of the context in the middle of the check is no verdict.
func TestACheckThatIsCancelledLeavesNoVerdict(t *testing.T) {
	cache := t.TempDir()
	p := newProber(cache)
	why := errors.New("cancelled by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	p.Restore = func(ctx context.Context, _ qemu.Machine, _ time.Duration) error {
		cancel(why)
		return context.Cause(ctx)
	}
	m, _ := fakeQEMU(t, boots)
	_, err := p.Probe(ctx, m, false)
	require.ErrorIs(t, err, why)
	require.Empty(t, cached(t, cache))
}
