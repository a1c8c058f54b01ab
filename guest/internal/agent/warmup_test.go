package agent

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpareThreadsAreDistinct(t *testing.T) {
	ids := map[int]bool{}
	for _, id := range makeThreads(spareThreads) {
		ids[id] = true
	}
	require.Len(t, ids, spareThreads)
}
