package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
)

// row is the result of one run.
func row(name, harness, metric string, value float64) suite.Row {
	return suite.Row{Case: name, Harness: harness, Metric: metric, Summary: results.Summary{Median: &value, Min: &value, Max: &value, Runs: 1}}
}

func TestTheSectionHasTheRatiosOfOneRun(t *testing.T) {
	rows := suite.Rows{
		row("restore-udp/arm", ours, ms, 120), row("exec/arm", ours, ms, 300), row("cold-udp/arm", ours, ms, 4000), row("edit/arm", ours, ms, 2000), row("edit/arm", ours, beyondGoTest, 800),
		row("exec-9p/arm", ours, ms, 310), row("exec-9p/arm", peer, ms, 6200), row("copy-in/16/arm64", ours, megabytes, 150),
		row("machines/200-in-turn", ours, perSecond, 7.25), row("machines/200-in-turn", ours, cpu, 140),
	}
	section := section(rows, publish.Results{})
	require.Contains(t, section, "| arm | 120 | – | 300 | 2.50 | – | – | 4000 | 2000 | 0.50 | 800 | 0.20 | – |")
	require.Contains(t, section, "| arm | debian | 310 | 6200 | 20 |")
	require.Contains(t, section, "| arm64 | 16 | 150 | – |")
	require.Contains(t, section, "| 200 in turn | 7.2 | 140 |")
	require.Contains(t, section, "| x86 | – | – | – | – | – | – | – | – | – | – | – | – |")
}

func TestARunThatLacksAValueIsNotPublished(t *testing.T) {
	require.EqualError(t, benchmark.Complete(suite.Rows{{Case: "restore-udp/x86", Harness: ours, Metric: ms, Summary: results.Summary{Failed: "broken"}}}),
		"restore-udp/x86 of guesthouse has no result: broken")
}

func TestEachEditOfTheGuestIsAnother(t *testing.T) {
	b := &bench{source: "../.."}
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(guestFile)), 0o777))
	seen := map[string]bool{}
	for range 3 {
		require.NoError(t, b.edit(dir))
		text, err := os.ReadFile(filepath.Join(dir, guestFile))
		require.NoError(t, err)
		require.False(t, seen[string(text)])
		seen[string(text)] = true
	}
}

func TestModulesComeAfterThoseTheyNeed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(
		"fs/9p/9p.ko: fs/netfs.ko net/9p/9pnet.ko\nfs/netfs.ko:\nnet/9p/9pnet.ko:\nnet/9p/9pnet_virtio.ko: net/9p/9pnet.ko\n"), 0o666))
	files, err := modulesOf(dir, "9pnet_virtio", "9p")
	require.NoError(t, err)
	require.Equal(t, []string{
		dir + "/net/9p/9pnet.ko:lib/modules/00-9pnet.ko", dir + "/net/9p/9pnet_virtio.ko:lib/modules/01-9pnet_virtio.ko",
		dir + "/fs/netfs.ko:lib/modules/02-netfs.ko", dir + "/fs/9p/9p.ko:lib/modules/03-9p.ko",
	}, files)
}

func TestAReportNamesEveryFailure(t *testing.T) {
	rows := suite.Rows{row("exec/arm", ours, ms, 300), {Case: "exec-9p/arm", Harness: peer, Metric: ms, Summary: results.Summary{Failed: "it <broke>"}}}
	require.Contains(t, markdown(suite.Report{Rows: rows, Runs: 1}), "exec-9p/arm of govmtest succeeded in 0 of 1 runs; its first failure: it <broke>")
}
