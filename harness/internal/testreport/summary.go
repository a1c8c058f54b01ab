package testreport

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Failed reports whether a package has failed.
func (r *Report) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.packages, (*result).failed)
}

// failed reports whether a package has failed. A package that has not ended was not heard of any more.
func (p *result) failed() bool { return p.action != "pass" && p.action != "skip" }

// Summary returns the failed tests of all runs and a line with the counts: of packages, each counted once
// for each run, and of tests without their subtests.
func (r *Report) Summary(runs int, took time.Duration) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	packages, tests := make(map[string]int), make(map[string]int)
	for _, p := range r.packages {
		var names []string
		for _, t := range p.tests {
			if strings.Contains(t.name, "/") {
				continue
			}
			if t.action != "pass" && t.action != "skip" {
				names = append(names, t.name)
				tests["fail"]++
			} else {
				tests[t.action]++
			}
		}
		switch {
		case p.failed():
			packages["fail"]++
			if len(names) == 0 {
				names = []string{"outside its tests"}
			}
			fmt.Fprintf(&b, "FAIL %s: %s\n", p.name(), strings.Join(names, ", "))
		case len(p.tests) == 0:
			packages["none"]++
		default:
			packages["pass"]++
		}
	}
	verdict := "ok"
	if packages["fail"] > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(&b, "%s: %s: packages: %d passed, %d failed, %d without tests; tests: %d passed, %d failed, %d skipped; %.1f s\n",
		verdict, kinds(runs), packages["pass"], packages["fail"], packages["none"], tests["pass"], tests["fail"], tests["skip"], took.Seconds())
	return b.String()
}

// kinds says how many kinds of machine there are.
func kinds(n int) string {
	if n == 1 {
		return "1 kind of machine"
	}
	return fmt.Sprintf("%d kinds of machine", n)
}
