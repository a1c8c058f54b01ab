package main

import (
	"context"
	"fmt"

	"guesthouse.example/bench/internal/suite"
)

// manyTarget is the target of the cases that restore many machines.
const manyTarget = "x86_64"

const (
	inTurn = 200 // machines one after the other
	atOnce = 16  // machines at once
)

// copyTargets are the targets of the cases that copy files, and copySizes the sizes in MiB.
var (
	copyTargets = []string{"x86_64", "arm64"}
	copySizes   = []int{1, 16, 256}
)

// A measurement makes one run of a case on a target.
type measurement func(ctx context.Context, target string) (map[string]float64, error)

// cases returns all cases. Those of one target are beside each other, because ratios of their results are
// published.
func (b *bench) cases() (all []suite.Case) {
	add := func(name, harness, target string, metrics []string, run measurement) {
		all = append(all, suite.Case{Name: name, Harness: harness, Metrics: metrics,
			Run: func(ctx context.Context) (map[string]float64, error) { return run(ctx, target) }})
	}
	for _, tg := range targets {
		for _, c := range []struct {
			name    string
			run     measurement
			metrics []string
		}{
			{"restore-udp/", b.restore, nil}, {"platform/", b.platform, nil}, {"cold-udp/", b.cold, nil},
			{"exec/", b.oneTest, nil}, {"exec-first/", b.firstTest, nil}, {"exec-8/", b.allTests, nil},
			{"edit/", b.editToResult, []string{beyondGoTest}}, {"unedited/", b.unedited, nil},
		} {
			add(c.name+tg, ours, tg, append([]string{ms}, c.metrics...), c.run)
		}
	}
	for _, tg := range targets {
		add("exec-9p/"+tg, ours, tg, []string{ms}, b.execPeerKernel)
		add("exec-9p/"+tg, peer, tg, []string{ms}, b.govmtest)
	}
	for _, tg := range copyTargets {
		for _, size := range copySizes {
			add(fmt.Sprintf("copy-in/%d/%s", size, tg), ours, tg, []string{ms, megabytes}, b.copies(size, true))
			add(fmt.Sprintf("copy-out/%d/%s", size, tg), ours, tg, []string{ms, megabytes}, b.copies(size, false))
		}
	}
	add(fmt.Sprintf("machines/%d-in-turn", inTurn), ours, manyTarget, []string{perSecond, cpu}, b.many(inTurn, 1))
	add(fmt.Sprintf("machines/%d-at-once", atOnce), ours, manyTarget, []string{perSecond, cpu}, b.many(atOnce, atOnce))
	return all
}
