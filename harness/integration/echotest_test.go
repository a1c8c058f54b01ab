package integration

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/echotest"
)

// Package echotest has the same checks for Zephyr's own service.
func TestTheEchoServiceKeepsItsPromises(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		report := echotest.Run(t.Context(), echotest.Service{Dial: dial(m), Console: m.Console(), Timeout: harnesstest.Within}, echotest.Guesthouse)
		t.Logf("%s\n%s", target, echotest.Table(report))
		require.NoError(t, report.Err())
		require.Contains(t, strings.Join(saw(report), "\n"), "UDP, 2000 bytes: none", "it drops what it cannot return whole")
		m.Shutdown()
	})
}

// saw returns what the checks of a report saw.
func saw(r echotest.Report) (lines []string) {
	for _, row := range r.Rows {
		lines = append(lines, row.Check+": "+row.Saw)
	}
	return lines
}
