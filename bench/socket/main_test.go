package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/results"
)

func selfPID() int { return os.Getpid() }

func TestTheFullPlanHasAllCases(t *testing.T) {
	p := newPlan(false)
	require.GreaterOrEqual(t, p.runs, 5)
	var names []string
	for _, c := range p.cases {
		names = append(names, c.String())
	}
	require.ElementsMatch(t, strings.Fields(`
		udp/1/64 udp/16/64 udp/256/64 udp/1/1400 udp/16/1400 udp/256/1400 udp-pipelined/16/64 udp-pipelined/16/1400
		tcp/1/64 tcp/16/64 tcp/256/64 tcp/10000/64 tcp/1/1400 tcp/16/1400 tcp/256/1400 tcp/10000/1400`), names)
}

func TestSelected(t *testing.T) {
	all, err := selected("")
	require.NoError(t, err)
	require.Len(t, all, 8)
	require.Equal(t, ours, all[0].name)
	some, err := selected("go-net,c-poll")
	require.NoError(t, err)
	require.Len(t, some, 2)
	_, err = selected("nginx")
	require.ErrorContains(t, err, "nginx")
}

// reported returns a report with one server that works and one that fails.
func reported() *report {
	b := &bench{plan: plan{cases: []benchCase{{"udp", 16, 64}}, runs: 2}, results: newResults(), notes: map[key][]float64{}, servers: servers[:2]}
	values := map[string]float64{cpuPerEcho: 4, serverBusy: 99}
	for _, m := range loadMetrics {
		b.results.Add(key{"udp/16/64", ours, m}, values[m])
		b.results.Fail(key{"udp/16/64", "c-epoll", m}, errors.New("load: <it> broke"))
	}
	none := map[string][]float64{"udp": {1}, "tcp": {1}}
	return newReport(b, stalled{without: none, with: none}, time.Now())
}

func TestAFailureIsInEveryFormOfTheReport(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, reported().write(dir))

	md, err := os.ReadFile(filepath.Join(dir, "socket.md"))
	require.NoError(t, err)
	require.Contains(t, string(md), "| c-epoll | **failed** |")
	require.Contains(t, string(md), "| udp/16/64 | 4.0 | **failed** |", "the ratios at a glance")
	require.Contains(t, string(md), "load: <it> broke")

	text, err := os.ReadFile(filepath.Join(dir, "socket.json"))
	require.NoError(t, err)
	var rows []row
	require.NoError(t, json.Unmarshal(text, &rows))
	require.Len(t, rows, 2*len(loadMetrics))

	svg, err := os.Open(filepath.Join(dir, "socket.svg"))
	require.NoError(t, err)
	defer svg.Close()
	for d := xml.NewDecoder(svg); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		}
		require.NoError(t, err, "the chart is XML")
	}
}

func TestRunsThatWereDisturbedAreCounted(t *testing.T) {
	r := reported()
	var md strings.Builder
	r.markdown(&md)
	require.NotContains(t, md.String(), "not quiet")

	r.notes[key{"udp/16/64", ours, generatorRan}] = []float64{0.99, 0.5}
	md.Reset()
	r.markdown(&md)
	require.Contains(t, md.String(), "in 1 of 2 runs")
}

func TestRatioIsOursOverThePeers(t *testing.T) {
	r := reported()
	for _, v := range []struct {
		server string
		value  float64
	}{{ours, 3}, {"go-net", 6}} {
		k := key{"tcp/1/64", v.server, cpuPerEcho}
		r.byKey[k] = row{Summary: results.Summary{Median: &v.value}}
	}
	require.Equal(t, "0.50", r.ratio("tcp/1/64", "go-net", cpuPerEcho))
	require.Empty(t, r.ratio("tcp/1/64", ours, cpuPerEcho))
	require.Empty(t, r.ratio("udp/16/64", "c-epoll", cpuPerEcho), "one that failed has none")
}

func TestAProcessHasItsCoreAndDiesWithItsContext(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, second, err := twoCores()
	require.NoError(t, err, "the benchmark needs two cores")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	path, err := exec.LookPath("sh")
	require.NoError(t, err)
	p, err := start(ctx, second, time.Minute, path, "-c", "echo why >&2; grep Cpus_allowed_list /proc/self/status; exec sleep 60")
	require.NoError(t, err)
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("Cpus_allowed_list:\t%d\n", second), line)
	cancel()
	require.EqualError(t, p.complain(errors.New("step")), "step: why")
	require.ErrorIs(t, syscall.Kill(p.pid(), 0), syscall.ESRCH, "it is reaped")
}

func TestTheVerdictHasTheRatioOfEachPeer(t *testing.T) {
	r := reported()
	four := 4.0
	for i, peer := range []string{"go-net", "evio"} {
		theirs := four * float64(i+2)
		r.byKey[key{"udp/16/64", peer, cpuPerEcho}] = row{Summary: results.Summary{Median: &theirs}}
	}
	r.servers = slices.DeleteFunc(slices.Clone(servers), func(s server) bool { return s.name == "gnet" || s.name[:2] == "c-" && s.name != "c-epoll" })
	var out strings.Builder
	r.verdict(&out)
	require.Contains(t, out.String(), "udp/16/64               c-epoll failed  go-net 0.50  evio 0.33\n", "netpoll has no UDP")
}

func TestARatioWithAServerThatSleptIsMarked(t *testing.T) {
	r := reported()
	four := 4.0
	for server, busy := range map[string]float64{ours: 99, "c-epoll": 96.9} {
		r.byKey[key{"udp/16/64", server, cpuPerEcho}] = row{Summary: results.Summary{Median: &four}}
		r.byKey[key{"udp/16/64", server, serverBusy}] = row{Summary: results.Summary{Median: &busy}}
	}
	c := r.cases[0]
	require.Equal(t, "*", r.mark(c, "*", ours, "c-epoll"))
	require.Empty(t, r.mark(c, "*", ours))
	require.Empty(t, r.mark(benchCase{"udp", 1, 64}, "*", ours, "c-epoll"), "with one client all sleep")
	var out strings.Builder
	r.verdict(&out)
	require.Contains(t, out.String(), "c-epoll 1.00*")
	require.Contains(t, out.String(), sleptNote)
}

// make figures brings them up to date.
func TestThePagesShowTheNewestResults(t *testing.T) {
	all, err := pages("../..")
	require.NoError(t, err)
	require.Empty(t, all.Stale("../.."), "run make figures")
}

func TestThePageHasTheReportWithoutItsCases(t *testing.T) {
	require.Equal(t, "\nmachine\n\n### Memory of a service\n\ntable\n\n### A TCP client that never reads\n\ntable\n\n[results.md](results.md) is the whole report.\n\n",
		section("# Title\n\nmachine\n\n## udp/1/64\n\ntable\n\n## Memory of a service\n\ntable\n\n## A TCP client that never reads\n\ntable\n\n## Servers\n\n- one\n"))
}

func TestAPartOfARunIsNotPublished(t *testing.T) {
	require.ErrorContains(t, complete([]byte(`[{"case":"udp/1/64","server":"guesthouse","metric":"cpu_us_per_echo","median":1}]`)),
		"udp/1/64 of c-epoll has no result")
	text, err := os.ReadFile("results.json")
	require.NoError(t, err)
	require.NoError(t, complete(text))
}
