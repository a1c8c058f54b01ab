package agent

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEventsAreTakenInOrder(t *testing.T) {
	var l eventLog
	_, _, ok := l.next()
	require.False(t, ok)
	for i := range 10 {
		l.add(strconv.Itoa(i))
	}
	for i := range 10 {
		text, dropped, ok := l.next()
		require.True(t, ok)
		require.Zero(t, dropped)
		require.Equal(t, strconv.Itoa(i), text)
	}
	_, _, ok = l.next()
	require.False(t, ok)
}

// A guest that sends events without end takes a bounded amount of the host's memory, and a test learns
// how many events it has missed.
func TestTooManyEventsAreDroppedAndCounted(t *testing.T) {
	for name, text := range map[string]string{"many": "", "long": strings.Repeat("x", 64<<10)} {
		t.Run(name, func(t *testing.T) {
			var l eventLog
			told := 3 * maxEvents
			if text != "" {
				told = 3 * maxEventBytes / len(text)
			}
			for i := range told {
				l.add(strconv.Itoa(i) + text)
				require.LessOrEqual(t, len(l.texts), maxEvents)
				require.LessOrEqual(t, l.bytes, maxEventBytes)
			}
			_, dropped, ok := l.next()
			require.True(t, ok)
			require.NotZero(t, dropped)
			taken := 0
			for ; ; taken++ {
				got, again, ok := l.next()
				if !ok {
					break
				}
				require.Zero(t, again, "the number of dropped events is returned once")
				require.Equal(t, strconv.Itoa(dropped+taken)+text, got)
			}
			require.Equal(t, told, dropped+taken)
			require.Greater(t, taken, told/4)
		})
	}
}

// An event that was taken does not count as dropped later.
func TestATakenEventIsNotReportedAsDropped(t *testing.T) {
	var l eventLog
	for i := range 10 * maxEvents {
		l.add("")
		_, dropped, ok := l.next()
		require.True(t, ok, i)
		require.Zero(t, dropped, i)
	}
}
