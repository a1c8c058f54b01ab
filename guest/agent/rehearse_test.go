package agent

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpareThreadsAreMade(t *testing.T) {
	prepare()
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	require.Greater(t, len(threads), spareThreads, "and the one that runs")
}
