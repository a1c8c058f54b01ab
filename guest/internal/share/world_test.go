package share

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// garbage makes garbage and calls Collect, until there was enough for several collections.
func garbage() {
	for range 8 * grown / (1 << 16) * every / 8 {
		kept = make([]byte, 1<<16)
		Collect()
	}
}

var kept []byte

func collections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}

// Go's runtime collects none, and a collection during a fork would stop the machine.
func TestGarbageIsCollectedButNotDuringAFork(t *testing.T) {
	holdWorld()
	require.GreaterOrEqual(t, runtime.GOMAXPROCS(0), 2)
	before := collections()
	_, err := Fork(func() (int, error) {
		garbage()
		return 1, nil
	})
	require.NoError(t, err)
	for late := time.Now().Add(time.Minute); collections() == before; runtime.Gosched() {
		require.True(t, time.Now().Before(late), "the collection that was due during the fork never comes")
	}

	during := collections()
	_, err = Fork(func() (int, error) {
		during = collections() // after one that was under way
		garbage()
		require.Equal(t, during, collections())
		return 1, nil
	})
	require.NoError(t, err)

	for late := time.Now().Add(time.Minute); collections() == during; {
		garbage()
		require.True(t, time.Now().Before(late))
	}
}
