package tsc

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMHzAgreesWithALongerMeasurement(t *testing.T) {
	if !available {
		require.Zero(t, MHz())
		return
	}
	require.InEpsilon(t, rate(read, 100*time.Millisecond), MHz(), 0.002)
}

func TestRateIsTicksPerMicrosecond(t *testing.T) {
	ticks, at := uint64(1)<<40, time.Now()
	fake := func() (uint64, time.Time) {
		ticks, at = ticks+2_500_000, at.Add(time.Millisecond)
		return ticks, at
	}
	require.InEpsilon(t, 2500, rate(fake, 0), 1e-9)
}
