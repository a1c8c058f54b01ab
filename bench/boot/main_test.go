package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/publish"
)

func TestAllCases(t *testing.T) {
	var names []string
	for _, c := range allCases() {
		names = append(names, c.name+" "+c.harness)
	}
	var want []string
	for _, tg := range targets {
		for _, network := range []string{"udp", "tcp"} {
			want = append(want, "restore-"+network+"/"+tg+" guesthouse", "cold-"+network+"/"+tg+" guesthouse", "cold-"+network+"/"+tg+" vmtest")
		}
		require.Contains(t, vmtestTargets, tg)
	}
	for _, tg := range targets {
		want = append(want, "prefetched-udp/"+tg+" guesthouse")
	}
	want = append(want, "many/1 guesthouse", "many/4 guesthouse", "many/16 guesthouse", "many/32 guesthouse")
	require.ElementsMatch(t, want, names)
}

func TestRowsHaveTheAgreedForm(t *testing.T) {
	r := newResults()
	for _, v := range []float64{97, 80, 86} {
		r.Add(key{"restore-udp/x86_64", ours, ms}, v)
	}
	r.Fail(key{"cold-udp/x86_64", peer, ms}, errors.New("broken"))
	text, err := json.Marshal(rows(r))
	require.NoError(t, err)
	require.Equal(t, `[{"case":"restore-udp/x86_64","harness":"guesthouse","metric":"ms","median":86,"min":80,"max":97,"runs":3},`+
		`{"case":"cold-udp/x86_64","harness":"vmtest","metric":"ms","median":null,"min":null,"max":null,"runs":0,"failed":"broken"}]`, string(text))
}

func TestAFailureIsInEveryFormOfTheReport(t *testing.T) {
	results := newResults()
	cases := []benchCase{{name: "cold-udp/x86_64", harness: ours}, {name: "cold-udp/x86_64", harness: peer}}
	results.Add(key{cases[0].name, ours, ms}, 1000)
	results.Fail(key{cases[1].name, peer, ms}, errors.New("it <broke>"))
	dir := t.TempDir()
	require.NoError(t, (&report{cases: cases, rows: rows(results), runs: 1, begin: time.Now()}).write(dir))
	for name, want := range map[string]string{"boot.json": `"failed": "it \u003cbroke\u003e"`, "boot.md": "it <broke>", "boot.svg": "failed"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, string(text), want)
		if name == "boot.svg" {
			dec := xml.NewDecoder(strings.NewReader(string(text)))
			for err = nil; err == nil; _, err = dec.Token() {
			}
			require.ErrorIs(t, err, io.EOF)
		}
	}
}

func TestALostEchoIsRequestedAgain(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	go func() {
		buf := make([]byte, 8)
		for i := 0; ; i++ {
			n, from, err := server.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if i > 0 {
				server.WriteToUDP(buf[:n], from)
			}
		}
	}()
	conn, err := net.Dial("udp", server.LocalAddr().String())
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, echo(ctx, conn))
}

// make figures brings them up to date.
func TestThePagesShowTheNewestResults(t *testing.T) {
	all, err := pages("../..")
	require.NoError(t, err)
	require.Empty(t, all.Stale("../.."), "run make figures")
}

func TestTheChartHasEveryTargetAndWay(t *testing.T) {
	r := newResults()
	r.Add(key{"restore-udp/x86_64", ours, ms}, 90)
	r.Add(key{"cold-udp/x86_64", peer, ms}, 3200)
	rep := &report{rows: rows(r)}
	c := rep.firstEcho(publish.Run{Machine: "M", Date: "2026-11-30", Runs: 3})
	require.Len(t, c.Panels, len(targets))
	for i, p := range c.Panels {
		require.Equal(t, targets[i], p.Title)
		require.Len(t, p.Bars, len(ways))
		require.False(t, p.Bars[3].Ours)
	}
	require.Equal(t, 90.0, *c.Panels[1].Bars[1].Median)
	require.ErrorContains(t, complete([]byte(`[{"case":"prefetched-udp/x86","harness":"guesthouse","metric":"ms","median":null,"failed":"broken"}]`)),
		"prefetched-udp/x86 of guesthouse has no result: broken")
	require.Contains(t, rep.section(publish.Results{}), "| x86_64 | – | 90 | – | – | – | 3200 | 36 |")
}
