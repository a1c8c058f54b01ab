package agent

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpareThreadsAreDifferentOnes(t *testing.T) {
	numbers := map[int]bool{}
	for _, n := range makeThreads(spareThreads) {
		numbers[n] = true
	}
	require.Len(t, numbers, spareThreads)
}
